"""bench/gpu.py: from nothing to every summary, and nothing done twice; here in small, on a CPU."""

import json
import shlex

import pytest
from bench_scripts import script

gpu = script("gpu")
PEER = ["peer", "sh -c 'echo took 2 s, 50 percent'", r"took (\d+) s", r"(\d+) percent"]


@pytest.fixture
def called(monkeypatch):
    """Notes the commands and answers as they would."""
    commands = []

    def asked(words, where=None):
        commands.append(shlex.join(words))
        if "--out" in words:  # a training that leaves what says that it began
            folder = gpu.Path(words[words.index("--out") + 1])
            folder.mkdir(parents=True)
            (folder / "seeds.json").write_text("{}")
        return '{"ratio": 1}'

    monkeypatch.setattr(gpu, "asked", asked)
    return commands


def test_everything_is_asked_for_once(called, tmp_path):
    options = ["--data", "cifar10", "--out", tmp_path / "out", "--results", tmp_path / "results"]
    options = [*map(str, options), "--ours", "fast", "--peer", *PEER]
    gpu.main(options)
    assert [word for word in called if " bench " in word and "--json" in word]
    trained = [word for word in called if "--seeds 3" in word]
    assert [word.split("--recipe ")[1].split()[0] for word in trained] == gpu.REFERENCES
    assert [word for word in called if "--publish" in word]
    (side,) = [word for word in called if "side_by_side" in word]
    assert "to_accuracy.py --recipe fast --seed" in side and "--turns 20" in side
    assert json.loads((tmp_path / "results/gpu/peer.json").read_text()) == {"ratio": 1}
    called.clear()
    gpu.main(options)
    assert all("--resume" in word or "--publish" in word for word in called)
