"""Pictures and tables say what the run folder says, with labelled axes."""

import io

import pytest
from rich.console import Console

from onecycle import progress
from onecycle.reporting import plots, tables
from onecycle.run import estimate, events
from onecycle.training.loop import Step


def rows(part, count=3):
    return [
        {
            "epoch": float(i + 1),
            "lr": 0.1 / (i + 1),
            "train_loss": 2.0 - i / 2,
            "train_accuracy": 0.3 + i / 10,
            f"{part}_loss": 1.9 - i / 2,
            f"{part}_accuracy": 0.35 + i / 10,
        }
        for i in range(count)
    ]


@pytest.mark.parametrize(("part", "name"), [("test", "test"), ("val", "validation")])
def test_curves_show_the_rows(part, name):
    axes = plots.curves(rows(part)).axes
    assert [a.get_ylabel() for a in axes] == [
        "cross-entropy (nats)",
        "top-1 accuracy (%)",
        "learning rate",
    ]
    assert {a.get_xlabel() for a in axes} == {"epoch"}
    accuracy = {line.get_label(): list(line.get_ydata()) for line in axes[1].lines}
    assert accuracy[name] == pytest.approx([35, 45, 55])
    assert list(axes[2].lines[0].get_ydata()) == [row["lr"] for row in rows(part)]


def test_curves_say_where_images_grow():
    loss, accuracy, rate = plots.curves(rows("test"), [(0.0, 16), (1.5, 24), (2.25, 32)]).axes
    for axes in (loss, accuracy):
        assert [line.get_xdata()[0] for line in axes.lines[2:]] == [1.5, 2.25]
    assert [text.get_text() for text in accuracy.texts] == ["24 px", "32 px"]
    assert len(rate.lines) == 1


def test_a_single_epoch_can_be_seen():
    assert all(a.lines[0].get_marker() == "o" for a in plots.curves(rows("test", 1)).axes)


def test_tables_are_sorted_and_in_per_cent():
    result = {
        "recipe": "b",
        "recipe_digest": "0b",
        "data": "digits",
        "data_digest": "0d",
        "seed": 0,
        "epochs": 12.0,
        "test_accuracy": 0.98765,
        "train_accuracy": 1.0,
        "gap": 0.01235,
        "seconds": 1234.5,
        "threads": 2,
        "hardware": "a CPU",
        "precision": "fp32",
        "parameters": 1000,
    }
    lines = tables.markdown([result, {**result, "recipe": "a"}], {}).splitlines()
    assert lines[:2] == ["Data: digits. Machine: 2 threads of a CPU, fp32.", ""]
    assert [line.split("|")[1].strip() for line in lines[4:]] == ["a", "b"]
    assert "| 1 | 98.77 |" in lines[4] and "1,234" in lines[4]

    seeds = tables.markdown([{**result, "test_accuracy": 0.9 + i / 100} for i in (0, 1)], {})
    assert len(seeds.splitlines()) == 5 and "| 2 | 90.50 ± 6.35 |" in seeds


def test_a_table_of_two_machines_says_which_was_whose():
    common = {"recipe": "a", "data": "d", "data_digest": "0", "recipe_digest": "0", "epochs": 1.0}
    common |= {"test_accuracy": 0.5, "train_accuracy": 0.5, "gap": 0.0, "seconds": 1.0}
    common |= {"threads": 2, "precision": "fp32", "parameters": 1}
    both = [{**common, "hardware": name} for name in ("A", "B")]
    reported = {"b": {"test": "1", "train": "2"}}
    said, _, columns, _, *rows = tables.markdown(both, reported).splitlines()
    assert said == "Data: d." and "machine" in columns and "data" not in columns
    assert [row.split("|")[-3].strip() for row in rows] == [
        "2 threads of A, fp32",
        "2 threads of B, fp32",
        "-",
    ]


def test_a_name_that_begins_with_an_underscore_is_in_the_legend():
    figure = plots.overlay([("_mine", [rows("test")]), ("b", [rows("test")])])
    texts = [text.get_text() for text in figure.axes[1].get_legend().get_texts()]
    assert texts == ["_mine", "b"]
    assert figure._repr_png_().startswith(b"\x89PNG"), "a notebook shows it"


@pytest.mark.parametrize("name", ["runs/x [old] :cat:", "x[/y]"])
def test_a_path_is_shown_as_it_is(capsys, name):
    progress.Show().note(name)
    show = progress.Show()
    show._console.print(name)
    assert capsys.readouterr().err == f"{name}\n{name}\n"


def test_overlaid_curves_have_a_colour_a_name_and_a_line_a_run():
    figure = plots.overlay([("a$1$", [rows("test"), rows("test")]), ("b", [rows("val")])])
    accuracy = figure.axes[0]
    colours = [line.get_color() for line in accuracy.lines]
    assert len(colours) == 3 and colours[0] == colours[1] != colours[2]
    assert [t.get_text() for t in figure.axes[1].get_legend().get_texts()] == [r"a\$1\$", "b"]
    assert list(accuracy.lines[2].get_ydata()) == pytest.approx([35, 45, 55])
    many = plots.overlay([(str(i), [rows("test")]) for i in range(20)]).axes[0].lines
    assert len({(line.get_color(), line.get_linestyle()) for line in many}) == 20


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "1 s"), (80, "80 s"), (3600, "60 min"), (9000, "2.5 h")]
)
def test_durations_are_in_the_unit_that_a_person_would_use(seconds, words):
    assert progress.duration(seconds) == words


def test_a_terminal_gets_a_bar_and_a_line_an_epoch(monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr(
        progress,
        "Console",
        lambda **options: Console(
            **{**options, "stderr": False}, file=screen, force_terminal=True, width=120
        ),
    )
    with progress.Show() as show:
        show.event(events.Progress(5, 10, 0, 0.01, 1.234, 0.5, 321.0, 60.0))
        show._bar.refresh()
        show.event(events.EpochDone({**rows("test")[0], "epoch": 1}))
    assert "loss 1.234" in screen.getvalue() and "321 images/s  60 s left" in screen.getvalue()
    assert "epoch   1" in screen.getvalue()


def test_the_expected_time_counts_training_and_judging(monkeypatch, tiny, make_recipe, machine):
    """Steps of 16 images that take 4 s each: a quarter of a second an image."""
    now = [0.0]

    def steps(*_, **__):
        while True:
            now[0] += 4.0
            yield Step(1, 0, 0.1, None, None, 16)

    monkeypatch.setattr(estimate, "fit", steps)
    monkeypatch.setattr(estimate.time, "perf_counter", lambda: now[0])
    recipe = make_recipe("batch_size=16", "epochs=3")
    trained, judged = 3 * 96, 3 * 32 + 96
    assert estimate.seconds(recipe, tiny, machine) == pytest.approx(0.25 * (trained + judged / 3))
