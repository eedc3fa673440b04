"""Many runs: one table, what differs in named ones, and whether their accuracies do."""

import csv
import io
import json

import numpy as np
import pytest

import onecycle
from onecycle import files
from onecycle.errors import RecipeError
from onecycle.run import record


@pytest.fixture
def make_run(tmp_path):
    """Writes a run folder by hand: which test images are right, and what its recipe says."""

    def make(name, right, seed=0, finished=True, digest="r", data="d", **recipe):
        folder = files.make_folder(tmp_path / "runs" / name)
        content = {"name": "net", "epochs": 4.0, "augment": {"cutout": 8}, **recipe}
        files.write_json(folder / record.RECIPE, {"digest": digest, "recipe": content})
        files.write_json(
            folder / record.ENVIRONMENT,
            {
                "data": {"name": "pictures", "digest": data},
                "seed": seed,
                "hardware": "a CPU",
                "python": "3",
                "versions": {},
                "val_fraction": 0.0,
            },
        )
        (folder / record.EVENTS).write_text("")
        (folder / record.METRICS).write_text(
            "epoch,lr,train_loss,train_accuracy,test_loss,test_accuracy\n2,0.1,1,0.5,1,0.5\n"
        )
        if finished:
            right = np.asarray(right, dtype=bool)
            np.save(folder / "test_labels.npy", np.zeros(len(right), dtype=np.int64))
            chances = np.where(right[:, None], [0.9, 0.1], [0.2, 0.8]).astype(np.float32)
            np.save(folder / "test_probabilities.npy", chances)
            summary = {
                "run": str(folder),
                "recipe": "net",
                "recipe_digest": digest,
                "data": "pictures",
                "data_digest": data,
                "seed": seed,
                "epochs": 4.0,
                "test_accuracy": float(right.mean()),
                "gap": 0.1,
                "seconds": 5.0,
            }
            files.write_json(folder / record.SUMMARY, summary)
        return folder

    return make


def test_every_run_is_a_row_the_unfinished_ones_too(make_run):
    make_run("net-1", [1, 1, 0, 0])
    make_run("net-2", [], finished=False)
    found = onecycle.results()
    assert [row["run"] for row in found.rows] == ["runs/net-1", "runs/net-2"]
    assert [row["state"] for row in found.rows] == ["finished", "2 of 4 epochs"]
    assert found.rows[0]["test_accuracy"] == 0.5 and "test_accuracy" not in found.rows[1]


def test_rows_are_chosen_and_sorted_by_any_key(make_run):
    make_run("a", [1, 0, 0, 0], seed=3)
    make_run("b", [1, 1, 1, 0], seed=3)
    make_run("c", [1, 1, 0, 0], seed=12)
    make_run("d", [], finished=False, seed=3)

    def names(**options):
        return [row["run"][-1] for row in onecycle.results(**options).rows]

    assert names(sort="-test_accuracy") == ["b", "c", "a", "d"]
    assert names(sort="seed")[-1] == "c", "12 comes after 3"
    assert names(where=["seed=3", "state=fin*"]) == ["a", "b"]
    with pytest.raises(RecipeError, match=r"--sort sed: .*did you mean 'seed'"):
        onecycle.results(sort="sed")
    with pytest.raises(RecipeError, match="write key=pattern"):
        onecycle.results(where=["seed"])


def test_a_folder_without_runs_is_named(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(RecipeError, match="empty: no run is there"):
        onecycle.results("empty")
    with pytest.raises(RecipeError, match="nowhere: there is no such run"):
        onecycle.results("nowhere")


def test_two_runs_are_compared_over_the_test_images(make_run):
    first = make_run("a", [1] * 90 + [0] * 10)
    second = make_run("b", [1] * 75 + [0] * 25, digest="s", augment={"cutout": 0, "pad": 2})
    found = onecycle.results(first, second)
    assert found.recipe_differences == {"augment.cutout": [8, 0], "augment.pad": [None, 2]}
    (row,) = found.accuracy_differences
    assert row["test"] == "McNemar" and row["difference"] == pytest.approx(0.15)
    assert row["p"] == pytest.approx(2 * 0.5**15) and row["significant"]


def test_seeds_are_compared_over_the_seeds(make_run):
    for seed in range(3):
        make_run(f"many/seed-{seed}", [1] * (90 + seed) + [0] * (10 - seed), seed=seed)
        make_run(f"few/seed-{seed}", [1] * (70 + seed) + [0] * (30 - seed), seed=seed, digest="s")
    found = onecycle.results("runs/many", "runs/few")
    (row,) = found.accuracy_differences
    assert row["test"] == "Welch" and row["difference"] == pytest.approx(0.2)
    assert row["significant"] and len(found.rows) == 6
    assert len(found.curves().axes[0].lines) == 6


def test_only_what_is_chosen_is_compared(make_run):
    for seed in range(3):
        make_run(f"many/seed-{seed}", [1] * (90 + seed) + [0] * (10 - seed), seed=seed)
        make_run(f"few/seed-{seed}", [1] * (70 + seed) + [0] * (30 - seed), seed=seed, digest="s")
    found = onecycle.results("runs/many", "runs/few", where="seed=1")
    (row,) = found.accuracy_differences
    assert row["test"] == "McNemar" and len(found.curves().axes[0].lines) == 2
    assert len(onecycle.results("runs", where="epochs=4").rows) == 6, "4 is 4.0"


def test_the_same_seed_twice_is_no_further_evidence(make_run):
    for name in ("a", "b"):
        make_run(f"many/{name}", [1, 0], seed=0)
        make_run(f"few/{name}", [1, 1], seed=0)
    with pytest.raises(RecipeError, match="runs/many holds seed 0 more than once"):
        onecycle.results("runs/many", "runs/few")


def test_what_no_test_fits_is_said_so(make_run):
    make_run("one", [1, 0])
    make_run("other", [1, 0], data="else")
    make_run("many/seed-0", [1, 0])
    make_run("many/seed-1", [1, 0], seed=1)

    def reason(*names):
        return onecycle.results(*names).accuracy_differences[0]["reason"]

    assert "different data" in reason("runs/one", "runs/other")
    assert "several seeds" in reason("runs/one", "runs/many")
    make_run("mixed/a", [1, 0])
    make_run("mixed/b", [1, 0], digest="s")
    with pytest.raises(RecipeError, match="mixed holds runs that differ in recipe_digest"):
        onecycle.results("runs/one", "runs/mixed")
    unfinished = make_run("half", [], finished=False)
    with pytest.raises(RecipeError, match="no finished run"):
        onecycle.results("runs/one", unfinished)


def test_what_is_published_can_be_listed_again(make_run, tmp_path):
    make_run("net-1", [1, 0])
    make_run("net-2", [], finished=False)
    make_run("many/seed-0", [1, 1])
    (tmp_path / "runs" / "many" / record.SEEDS).write_text("{}")
    onecycle.results(publish="kept")
    assert sorted(p.name for p in (tmp_path / "kept").iterdir()) == [
        "many-seed-0.json",
        "net-1.json",
    ]
    rows = onecycle.results("kept").rows
    assert [(row["run"], row["test_accuracy"]) for row in rows] == [
        ("many-seed-0", 1.0),
        ("net-1", 0.5),
    ]
    with pytest.raises(RecipeError, match="compared by their folders"):
        onecycle.results("kept/net-1.json", "kept/many-seed-0.json")


def test_no_run_is_published_over_another(make_run, tmp_path):
    make_run("a/net", [1, 0])
    make_run("b/net", [1, 1])
    with pytest.raises(RecipeError, match=r"a/net and .*b/net would both be net\.json"):
        onecycle.results(publish="kept")
    assert not (tmp_path / "kept").exists()
    assert len(onecycle.results(where="run=*a/net", publish="kept").rows) == 1


def test_seeds_that_are_all_alike_are_not_compared(make_run):
    for name in ("one", "other"):
        for seed in (0, 1):
            make_run(f"{name}/seed-{seed}", [1, int(name == "one")], seed)
    (found,) = onecycle.results("runs/one", "runs/other").accuracy_differences
    assert "no spread to judge by" in found["reason"]


def test_the_command_prints_a_table_csv_or_json(make_run, capsys, monkeypatch):
    from onecycle.cli import results as command

    make_run("a", [1] * 9 + [0])
    make_run("b", [1] * 5 + [0] * 5, digest="s", augment={"cutout": 4})
    with pytest.raises(RecipeError, match=r"--plot both.pdf: .* end in .png"):
        command.results("runs/a", "runs/b", plot="both.pdf")
    command.results("runs/a", "runs/b", plot="both.png")
    out = capsys.readouterr().out
    assert "90.00%" in out and "augment.cutout: 8 | 4" in out and "McNemar" in out
    assert "+40.00 points" in out
    with open("both.png", "rb") as picture:
        assert picture.read().startswith(b"\x89PNG")
    command.results(csv_=True)
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["test_accuracy"] for row in rows] == ["0.9", "0.5"]
    command.results(json_=True)
    assert len(json.loads(capsys.readouterr().out)["runs"]) == 2
