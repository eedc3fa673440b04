"""`onecycle predict`: a line, a row or an object for each file, and bad ones by name."""

import ast
import csv
import io
import json
import os
import subprocess
import sys

import pytest
from digit_pictures import copy_of, folder, tests

from onecycle import files
from onecycle.errors import DataError

__all__ = ["folder", "tests"]


def test_a_prediction_does_not_wait_for_what_draws_and_judges(folder):
    code = (
        "import sys\nfrom onecycle.cli import main\n"
        "try: main()\n"
        "finally: print({name.split('.')[0] for name in sys.modules}, file=sys.stderr)"
    )
    given = ["predict", "--pretrained", "cifar10", str(folder / "a.png")]
    ran = subprocess.run([sys.executable, "-c", code, *given], capture_output=True, text=True)
    assert "a.png" in ran.stdout, ran.stderr
    loaded = set(ast.literal_eval(ran.stderr.splitlines()[-1]))
    assert not loaded & {"matplotlib", "scipy", "sklearn", "pandas", "jinja2"}, ran.stderr


def test_json_is_a_list_of_objects(command, digits_run, folder):
    code, out, err = command("predict", digits_run.path, folder, "--json", "--top", "2")
    assert code == 0 and "temperature" in err
    rows = json.loads(out)
    assert [row["file"][-5:] for row in rows] == ["a.png", "b.png", "d.bmp", "e.gif", "c.PNG"]
    for row in rows:
        assert set(row) == {"file", "label", "probability", "top", "calibrated"}
        assert [set(each) for each in row["top"]] == [{"label", "probability"}] * 2
        assert row["top"][0] == {"label": row["label"], "probability": row["probability"]}
        assert 0 <= row["probability"] <= 1 and row["calibrated"] is True
    api = digits_run.predict(folder, top=2, threads=1)
    assert [one.to_dict()["label"] for one in api] == [row["label"] for row in rows]


def test_csv_has_a_row_a_file(command, digits_run, folder):
    code, out, err = command("predict", digits_run.path, folder, "--csv", "--top", "99", "-q")
    assert code == 0 and err == ""
    rows = list(csv.DictReader(io.StringIO(out)))
    assert len(rows) == 5 and rows[0]["calibrated"] == "True"
    shares = [rows[0]["probability"], *(rows[0][f"probability_{i}"] for i in range(2, 11))]
    assert sum(map(float, shares)) == pytest.approx(1, abs=1e-5)


def test_names_are_read_from_stdin(command, digits_run, folder):
    names = f"{folder / 'b.png'}\n\n{folder / 'sub'}\r\n".encode()
    code, out, _ = command("predict", digits_run.path, folder / "d.bmp", "-", stdin=names)
    lines = out.splitlines()
    assert code == 0 and lines[0] == "probabilities are calibrated"
    assert [line.split("/")[-1] for line in lines[1:]] == ["d.bmp", "b.png", "c.PNG"]


def test_a_bad_file_is_named_and_the_rest_go_on(command, digits_run, folder):
    whole = (folder / "a.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.jpg").touch()
    os.mkfifo(folder / "pipe.png")
    code, out, err = command("predict", digits_run.path, folder, "nowhere.png", "--json", "-q")
    assert code == 3 and len(json.loads(out)) == 5
    bad = [line.split(": ")[1].split("/")[-1] for line in err.splitlines()]
    assert bad[:4] == ["cut.png", "empty.jpg", "pipe.png", "nowhere.png"]
    assert "4" in err.splitlines()[4] and err.count("\n") == 5
    one = digits_run.predict("nowhere.png", threads=1)[0]
    assert one.top == () and "No such file" in one.problem
    with pytest.raises(DataError, match=r"nowhere.png: No such file"):
        one.label  # noqa: B018


def test_odd_names_stay_on_a_line(command, digits_run, folder, tmp_path):
    run = copy_of(digits_run, tmp_path / "run")
    (run / "classes.json").unlink()
    names = ["two\nlines", "red\x1b[31m", "\u202eleft", "Ünï 数", *(f"{i}" for i in range(6))]
    files.write_json(run / "classes.json", names)
    odd = "line\nbreak\x1b[2J.png"
    (folder / "a.png").rename(folder / odd)
    (folder / "b.png").rename(folder / os.fsdecode(b"\xff.png"))
    (folder / "bad\n.png").write_text("")
    for form in ((), ("--csv",)):
        code, out, err = command("predict", run, folder, "--top", "10", *form)
        assert code == 3 and len(out.splitlines()) == 6 and len(err.splitlines()) == 3
        assert all(c.isprintable() or c == "\n" for c in out + err)
        assert r"line\nbreak\x1b[2J.png" in out and r"\udcff.png" in out
        assert r"two\nlines" in out and "Ünï 数" in out
    rows = json.loads(command("predict", run, folder, "--json")[1])
    assert str(folder / odd) in [row["file"] for row in rows]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["RUN", "empty"], 3, "no images there"),
        (["RUN", "-"], 3, "no images there"),
        (["RUN"], 2, "name a run folder (or --pretrained NAME), then image files or folders"),
        ([], 2, "name a run folder"),
        (["--pretrained", "cifar10"], 2, "predict: name image files or folders"),
        (["--pretrained", "cifar10", "-"], 3, "no images there"),
        (["RUN", "empty", "--topp", "3"], 2, "--topp: no such option"),
        (["RUN", "empty", "--top", "0"], 2, "--top 0"),
        (["RUN", "empty", "--csv", "--json"], 2, "choose one"),
        (["nowhere", "empty"], 2, "nowhere: no run is there"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_use_ends_in_a_line(command, digits_run, tmp_path, arguments, code, said):
    (tmp_path / "empty").mkdir()
    arguments = [digits_run.path if each == "RUN" else each for each in arguments]
    found, out, err = command("predict", *arguments, "-q")
    assert (found, out) == (code, "") and said in err and err.count("\n") == 1
