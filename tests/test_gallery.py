"""Galleries show the right images in the right colours and order, with names as they are."""

import csv
import json
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

import onecycle
from onecycle import cli
from onecycle.errors import MissingExtraError, RecipeError
from onecycle.evaluation.pick import pick
from onecycle.reporting import gallery as drawing
from onecycle.reporting import plots
from onecycle.reporting.gallery import Picture

# Eight images of two classes, wrong at 1, 3, 5 and 6.
SURE = np.array([0.9, 0.4, 0.6, 0.1, 0.7, 0.2, 0.2, 0.5 + 1e-6])  # of the actual class
LABELS = np.array([0, 0, 0, 0, 1, 1, 1, 1])
P = np.where(LABELS[:, None] == [[0, 1]], SURE[:, None], 1 - SURE[:, None]).astype(np.float32)


@pytest.mark.parametrize(
    ("options", "positions"),
    [
        (("wrong", "loss"), [3, 5, 6, 1]),
        (("wrong", "confidence"), [3, 5, 6, 1]),
        (("right", "loss"), [7, 2, 4, 0]),
        (("right", "confidence"), [0, 4, 2, 7]),
        (("all", "loss"), [3, 5, 6, 1, 7, 2, 4, 0]),
        (("all", "confidence"), [0, 3, 5, 6, 4, 1, 2, 7]),
        (("wrong", "loss", 0, 1), [5, 6]),
        (("all", "loss", 0, None, 1), [3, 1, 7, 4]),
        (("all", "loss", 0, 1, 1), [7, 4]),
        (("right", "loss", 0, 0, 1), []),
    ],
)
def test_images_are_picked_and_ordered(options, positions):
    assert pick(P, LABELS, *options).tolist() == positions


def test_a_random_order_is_its_seeds():
    first, again, other = (pick(P, LABELS, "all", "random", seed).tolist() for seed in (1, 1, 2))
    assert first == again != other
    assert sorted(first) == sorted(other) == list(range(8))


def picture(**changes):
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    known = {"index": 7, "name": "test/cat/a.png", "actual": "cat", "predicted": "dog"}
    return Picture(**{"pixels": pixels, **known, "confidence": 0.5, "loss": 1.0, **changes})


def drawn(figure):
    """The pixels of `figure`, as saved."""
    figure.set_dpi(plots.DPI)
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3]


@pytest.mark.parametrize(("size", "times"), [(16, 8), (48, 2), (100, 1)])
def test_pixels_are_enlarged_exactly_and_in_their_colours(size, times):
    pixels = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
    page = drawn(drawing.page([picture(), picture(pixels=pixels)], "title"))
    large = pixels.repeat(times, axis=0).repeat(times, axis=1)
    x = 2 * drawing.GAP + max(drawing.CELL, 128, size * times)
    found = page[drawing.TOP : drawing.TOP + size * times, x : x + size * times]
    assert (found == large).all()


def texts(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def test_captions_name_what_was_seen():
    lines = texts(drawing.page([picture(), picture(name="", quality=0.25)], "the title"))
    for line in ("actual: cat", "predicted: dog", "50.0%, loss 1.00", "a.png", "the title"):
        assert line in lines
    assert {"labelled: cat", "image 7", "50.0%, label quality 0.25"} <= set(lines)


@pytest.mark.parametrize("name", ["$x$", "a $ b", "$$", r"\$", r"$\frac{1}{2}$", "a_b^c", "日本"])
def test_odd_names_are_shown_letter_by_letter(name, tmp_path):
    figure = drawing.page([picture(actual=name, predicted=name, name=f"{name}.png")], name)
    plots.save(figure, tmp_path / "page.png")
    shown = []
    for text in figure.axes[0].texts:
        letters, is_math = text._preprocess_math(text.get_text())
        assert not is_math
        shown.append(letters)
    seen = r"\u65e5\u672c" if name == "日本" else name  # the font has no such letters
    assert {f"actual: {seen}", f"predicted: {seen}", f"{seen}.png", seen} <= set(shown)
    assert drawing.rows([picture(actual=name)])[0]["actual"] == name


def test_long_names_are_shortened_in_the_middle():
    assert plots.literal("abcdefghij", 5) == "ab…ij"
    assert plots.literal("abcdefghij", 10) == "abcdefghij"


def test_no_text_is_wider_than_its_place():
    names = ["n02092339_WEIMARANER_10234.JPEG", "IMG_20230512_143355_BURST001.jpg"]
    pictures = [picture(name=name, predicted="MARKED_CROSSWALKS_N") for name in names]
    shown = drawing.page(pictures, "CIFAR-10 (JPEG q75): 9 of 50,000 training images " * 3)
    shown.draw_without_rendering()
    cell = drawing.CELL + drawing.GAP
    for text in shown.axes[0].texts:
        box = text.get_window_extent()
        room = shown.bbox.width if "CIFAR" in text.get_text() else cell
        assert 0 < box.width <= room, text.get_text()


def test_a_map_is_laid_over_the_image():
    heat = np.zeros((4, 4), dtype=np.float32)
    heat[0, 0] = 5
    grey = np.full((32, 32, 3), 100, dtype=np.uint8)
    tile = drawing.enlarged(picture(pixels=grey, heat=heat))
    assert tile.shape == (128, 256, 3) and (tile[:, :128] == 100).all()
    over = tile[:, 128:].astype(int)
    assert over[0, 0].sum() > over[-1, -1].sum() + 200
    nothing = drawing.enlarged(picture(pixels=grey, heat=np.zeros((4, 4), dtype=np.float32)))
    assert (nothing[:, 128:] == nothing[0, 128]).all()


@pytest.fixture
def run(judged, tmp_path):
    return onecycle.load(shutil.copytree(judged.path, tmp_path / "run"))


def gallery(run, count=25, **options):
    return onecycle.gallery(run, count, threads=1, quiet=True, **options)


def test_a_gallery_shows_the_images_themselves(run):
    found = gallery(run, 30, show="all")
    classes = json.loads((run.path / "classes.json").read_text())
    source = json.loads((run.path / "environment.json").read_text())["data"]["source"]
    assert len(found.pictures) == 30
    assert [p.loss for p in found.pictures] == sorted(
        (p.loss for p in found.pictures), reverse=True
    )
    for p in found.pictures:
        with Image.open(f"{source}/{p.name}") as image:
            assert (np.asarray(image) == p.pixels).all()
        assert p.name.split("/")[1] == p.actual
        row = run.probabilities[p.index]
        assert (p.predicted, p.confidence) == (classes[row.argmax()], row.max())
        assert p.loss == pytest.approx(-np.log(row[classes.index(p.actual)]), rel=1e-5)
    right = [p.actual == p.predicted for p in found.pictures]
    assert sum(right) / 30 == run.test_accuracy
    assert len(gallery(run, 30, show="right").pictures) == sum(right)
    assert len(gallery(run, 30).pictures) == 30 - sum(right) > 0


def test_a_gallery_is_written_when_asked_and_the_same_again(run):
    found = gallery(run, 4, show="all", cam=True)
    assert not found.path.exists()
    found.save()
    first = {path.name: path.read_bytes() for path in found.path.iterdir()}
    assert sorted(first) == ["gallery.csv", "maps.npy", "page-1.png"]
    rows = list(csv.DictReader(first["gallery.csv"].decode().splitlines()))
    assert [row["name"] for row in rows] == [p.name for p in found.pictures]
    assert np.load(found.path / "maps.npy").shape == (4, 16, 16)
    gallery(run, 4, show="all", cam=True).save()
    assert {path.name: path.read_bytes() for path in found.path.iterdir()} == first
    assert gallery(run, 4, show="all", by="random").path != found.path


def test_a_class_is_named_literally_and_an_empty_gallery_is_one(run):
    found = gallery(run, actual="$dog$ & co", show="all")
    assert {p.actual for p in found.pictures} == {"$dog$ & co"} and len(found.pictures) == 10
    assert "actual $dog$ & co" in found.title
    nothing = gallery(run, actual="cat", predicted="cat")
    assert nothing.pictures == () and len(nothing.figures()) == 1
    nothing.save()


def test_pages_hold_a_hundred():
    pages = onecycle.Gallery((picture(),) * 201, "many", None).figures()
    assert [len(texts(page)) for page in pages] == [401, 401, 5]


def test_copies_are_put_by_class(run, tmp_path):
    found = gallery(run, 30, show="all")
    found.copy(tmp_path / "copies")
    for p in found.pictures:
        stem = p.name.split("/")[-1].removesuffix(".png")
        path = tmp_path / "copies" / p.actual / p.predicted / f"{p.index:05d}-{stem}.png"
        with Image.open(path) as image:
            assert (np.asarray(image) == p.pixels).all()
    with pytest.raises(RecipeError, match="not empty"):
        found.copy(tmp_path / "copies")


@pytest.mark.parametrize("name", ["../../up", "/etc", "..", "a/b", ".hidden", "", "c:\\x", "\n"])
def test_no_name_leads_out_of_the_folder_of_copies(tmp_path, name):
    drawing.copy([picture(actual=name, predicted=name, name=f"t/c/{name}.png")], tmp_path / "in")
    (written,) = tmp_path.rglob("*.png")
    assert written.relative_to(tmp_path / "in").parts[2:] == (written.name,)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"show": "wrnog"}, "--show wrnog: choose wrong, right, all"),
        ({"by": "size"}, "--by size"),
        ({"count": 0}, "--count 0"),
        ({"seed": -1}, "--seed -1"),
        ({"actual": "cta"}, "--actual cta: .*did you mean 'cat'"),
        ({"predicted": "0"}, "--predicted 0"),
    ],
)
def test_wrong_options_are_named(run, options, said):
    with pytest.raises(RecipeError, match=said):
        gallery(run, **options)


def test_top_losses_is_one_figure(run):
    assert len(texts(run.top_losses(3))) == 13
    assert run.top_losses(3)._repr_png_().startswith(b"\x89PNG"), "as a notebook shows it"
    with pytest.raises(RecipeError, match="at most 100"):
        run.top_losses(101)


def test_a_missing_library_is_named_with_its_extra(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(MissingExtraError, match=r"onecycle\[explain\]"):
        gallery(run, show="all", cam=True)
    monkeypatch.setitem(sys.modules, "cleanlab", None)
    with pytest.raises(MissingExtraError, match=r"onecycle\[labels\]"):
        onecycle.label_errors(run)


def test_the_command_line_writes_and_says_where(run, capsys, monkeypatch, tmp_path):
    command = ["onecycle", "gallery", str(run.path), "--count", "2", "--show", "all"]
    monkeypatch.setattr(sys, "argv", [*command, "--copy", "copies", "--json"])
    cli.main()
    result = json.loads(capsys.readouterr().out)
    assert (run.path / "gallery" / "all-by-loss-2" / "page-1.png").exists()
    assert [row["name"] for row in result["pictures"]] == [
        row["name"] for row in gallery(run, 2, show="all").rows
    ]
    assert len(list((tmp_path / "copies").rglob("*.png"))) == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--epochs", "1"], "--epochs goes with --label-errors only"),
        (["--label-errors", "--cam"], "--cam does not go with --label-errors"),
        (["--set", "model.width=2"], "--set goes with --label-errors only"),
    ],
)
def test_options_that_do_not_go_together_are_refused(capsys, monkeypatch, options, said):
    monkeypatch.setattr(sys, "argv", ["onecycle", "gallery", "run", *options])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 2 and said in capsys.readouterr().err
