"""bench/side_by_side.py: two commands in turn, and their ratio with its interval."""

import json
import math

import pytest
from bench_scripts import script
from scipy import stats

side = script("side_by_side")


@pytest.fixture
def run(capsys):
    """Runs the script: its result, and what it says on the way."""

    def start(*arguments):
        side.main([*map(str, arguments)])
        out, err = capsys.readouterr()
        return json.loads(out), err

    return start


def says(text):
    return f"sh -c 'echo {text}'"


def test_the_commands_take_turns(run, tmp_path):
    log = tmp_path / "log"
    commands = [f"sh -c 'echo {name}{{turn}} >> {log}'" for name in "AB"]
    result, err = run(*commands, "--turns", 3, "--warm-up", 1)
    assert log.read_text().split() == ["A0", "B0", "A0", "B0", "A1", "B1", "A2", "B2"]
    assert result["ratio"]["n"] == 3 and [len(turns) for turns in result["turns"]] == [3, 3]
    assert err.count("warm-up") == 2


def test_the_ratio_is_the_geometric_mean_of_pairs_with_students_interval(run):
    first, second = [2.0, 8.0, 3.0], [1.0, 2.0, 3.0]
    turns = [[side.Turn(seconds, None) for seconds in part] for part in (first, second)]
    found = side.compared(*turns)
    logs = [math.log(a / b) for a, b in zip(first, second, strict=True)]
    expected = stats.ttest_1samp(logs, 0).confidence_interval(0.95)
    assert found["ratio"]["mean"] == pytest.approx(2.0)  # of 2, 4 and 1
    assert found["ratio"]["low"] == pytest.approx(math.exp(expected.low))
    assert found["ratio"]["high"] == pytest.approx(math.exp(expected.high))
    assert "accuracy_difference" not in found


def test_seconds_and_accuracy_are_read_from_what_is_printed(run):
    ours, theirs = says("time 1s, time 2.5s, acc 91.25%"), says("time 10s, acc 90")
    result, _ = run(
        *(ours, theirs, "--turns", 2, "--warm-up", 0, "--names", "ours", "theirs"),
        *("--seconds", r"time ([\d.]+)s", "--accuracy", r"acc ([\d.]+)"),
    )
    assert result["names"] == ["ours", "theirs"]
    assert result["ratio"]["mean"] == pytest.approx(0.25)
    assert result["ratio"]["low"] == result["ratio"]["high"] == pytest.approx(0.25)
    assert result["accuracy_difference"]["mean"] == pytest.approx(0.0125)
    assert result["turns"][0][0] == {"seconds": 2.5, "accuracy": 0.9125}


def test_each_command_has_its_own_expressions(run):
    result, _ = run(
        *(says("seconds 3 and 0.93"), says("took 2 for 91 %"), "--turns", 1, "--warm-up", 0),
        *("--seconds", r"seconds (\d+)", r"took (\d+)", "--accuracy", r"and (.*)", r"for (\d+)"),
    )
    assert result["turns"] == [
        [{"seconds": 3, "accuracy": 0.93}],
        [{"seconds": 2, "accuracy": 0.91}],
    ]


def test_one_turn_has_no_interval(run):
    result, _ = run("true", "true", "--turns", 1, "--warm-up", 0)
    assert result["ratio"]["low"] is None and result["ratio"]["mean"] > 0


@pytest.mark.parametrize(
    ("command", "options", "said"),
    [
        ("sh -c 'echo broken; exit 3'", [], "exit code 3: broken"),
        ("no-such-command", [], "no-such-command: No such file"),
        (says("nothing"), ["--seconds", r"time (\d+)"], "nothing printed matches"),
        (says("time soon"), ["--seconds", r"time (\w+)"], "no number"),
        (says("time 0"), ["--seconds", r"time (\d+)"], "no ratio"),
        (says("x"), ["--seconds", "("], "missing )"),
    ],
)
def test_what_fails_is_named_in_a_line(run, command, options, said):
    with pytest.raises(SystemExit) as stop:
        run(command, "true", *options)
    assert said in str(stop.value) and "\n" not in str(stop.value)
