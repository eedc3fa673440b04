"""Batches from another backend, or gathered from the host, are the images that they should be."""

import numpy as np
import pytest
import torch
from scipy import stats

import onecycle
from onecycle import errors, files
from onecycle.datasets import augment, feed, pipeline
from onecycle.datasets.dataset import Dataset, Split
from onecycle.datasets.feed import Feed
from onecycle.errors import MissingExtraError, RecipeError
from onecycle.recipe.schema import AugmentSpec
from onecycle.run import estimate
from onecycle.run.memory import limit
from onecycle.training import state as states
from onecycle.training.loop import fit

SIZE, COUNT = 16, 2000
FILLED = 200  # the mean blue, which a cutout has; the image's pixels have 199 or 201
REFERENCE = AugmentSpec(pad=2, flip="random", cutout=5, cutout_probability=0.5)
CLIPPED = AugmentSpec(flip="random", cutout=6, cutout_side="random", cutout_place="clipped")


@pytest.fixture(scope="module")
def marked():
    """Copies of one image whose red is the row and whose green is the column, both from 1."""
    y, x = np.mgrid[1 : SIZE + 1, 1 : SIZE + 1]
    image = np.stack([y, x, FILLED - 1 + 2 * ((x + y) % 2)], axis=2).astype(np.uint8)
    split = Split(image[None], np.zeros(COUNT, np.int64), np.zeros(COUNT, np.int64))
    return Dataset("marked", ("a", "b"), split, split, "marked")


def made(data, spec, backend, epoch=0, workers=0, part=500):
    """All images of an epoch, (COUNT, H, W, 3), in the order of their positions."""
    parts = torch.arange(COUNT).split(part)
    if backend == "albumentations":
        fill = augment.fill_colour(spec, data.mean).numpy()
        rows = [(part, part) for part in parts]
        images = pipeline.batches(spec, data.train, fill, 0, epoch, rows, workers)
    else:
        plan = augment.draw(spec, COUNT, SIZE, 0, epoch)
        places = plan.order.argsort().split(part)
        images = every(Feed(spec, data, "cpu", 0).batches(epoch, plan, places))
    return torch.cat(list(images)).numpy()


def every(batches):
    """All images of each of `batches`, asked for in two slices."""
    return (torch.cat([given(slice(7)), given(slice(7, None))]) for given in batches)


def choices(images):
    """What was done to each image, read off the pixels that the cutout and the border leave."""
    red, green, blue = np.moveaxis(images.astype(float), 3, 0)
    y, x = np.mgrid[:SIZE, :SIZE].astype(float)
    kept = (blue > 0) & (blue != FILLED)

    def mean(values):
        return (values * kept).sum((1, 2)) / kept.sum((1, 2))

    flip = mean(x * green) < mean(x * np.ones_like(green)) * mean(green)
    column = np.where(flip[:, None, None], SIZE - 1 - x, x)
    cut = blue == FILLED
    return {
        "top": np.rint(mean(red - 1 - y)).astype(int),
        "left": np.rint(mean(green - 1 - column)).astype(int),
        "flip": flip.astype(int),
        "cut_top": np.where(cut.any((1, 2)), cut.any(2).argmax(1), SIZE),
        "cut_left": np.where(cut.any((1, 2)), cut.any(1).argmax(1), SIZE),
        "cut_height": cut.any(2).sum(1),
        "cut_width": cut.any(1).sum(1),
    }


def assert_same_distribution(first, second):
    """Chi-square over the joint values of the columns in both (n, columns)."""
    _, values = np.unique(np.concatenate([first, second]), axis=0, return_inverse=True)
    counts = [np.bincount(part, minlength=values.max() + 1) for part in np.split(values, 2)]
    rare = sum(counts) < 10  # put together, for the test's approximation
    table = [[*count[~rare], count[rare].sum() + 1] for count in counts]
    assert stats.chi2_contingency(table).pvalue > 1e-3


PAIRS = {  # choices that are looked at together, so that those that hang together would be seen
    REFERENCE: (
        *(("top", "left"), ("flip", "left"), ("flip", "top"), ("cut_top", "cut_left")),
        *(("cut_height", "cut_width"), ("left", "cut_left"), ("flip", "cut_left")),
    ),
    CLIPPED: (
        *(("flip", "cut_height"), ("cut_top", "cut_height"), ("cut_left", "cut_width")),
        *(("cut_height", "cut_width"), ("flip", "cut_left")),
    ),
}


@pytest.mark.parametrize("spec", PAIRS, ids=["reference", "clipped"])
def test_both_backends_draw_the_same_distributions(marked, spec):
    found = [choices(made(marked, spec, backend)) for backend in ("own", "albumentations")]
    for columns in PAIRS[spec]:
        assert_same_distribution(
            *(np.stack([of[column] for column in columns], axis=1) for of in found)
        )
    assert all(len(np.unique(of["cut_top"])) > 8 for of in found)


def test_the_test_sees_choices_that_hang_together(marked):
    """As they would, if each of the library's steps were given a seed of its own."""
    found = choices(made(marked, REFERENCE, "own"))
    columns = [np.stack([found[name], found["left"]], axis=1) for name in ("flip", "top")]
    columns[1][:, 0] = found["left"] > 0
    with pytest.raises(AssertionError):
        assert_same_distribution(*columns)


@pytest.mark.parametrize("pad_mode", ["zero", "reflect"])
def test_padding_cropping_and_flipping_make_the_same_images(marked, pad_mode):
    spec = AugmentSpec(pad=2, pad_mode=pad_mode, flip="random")
    kinds = [
        {image.tobytes() for image in made(marked, spec, backend)}
        for backend in ("own", "albumentations")
    ]
    assert kinds[0] == kinds[1] and len(kinds[0]) == 2 * 5 * 5


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a machine of one core
def test_an_image_is_a_function_of_seed_epoch_and_position(marked):
    alone = made(marked, REFERENCE, "albumentations")
    np.testing.assert_array_equal(
        made(marked, REFERENCE, "albumentations", workers=2, part=64), alone
    )
    other = made(marked, REFERENCE, "albumentations", epoch=1)
    assert (other != alone).any((1, 2, 3)).mean() > 0.9


@pytest.mark.parametrize("backend", ["own", "albumentations"])
def test_an_image_that_comes_twice_in_an_epoch_looks_different(marked, backend):
    labels = np.zeros(COUNT, np.int64)
    labels[:5] = 1  # balanced, each of these five comes two hundred times
    plan = augment.draw(REFERENCE, COUNT, SIZE, 0, 0, balanced=labels)
    source = Feed(REFERENCE, marked, "cpu", 0, backend)
    batches = source.batches(0, plan, torch.arange(COUNT).split(500))
    images = torch.cat(list(every(batches))).numpy()
    kinds = {image.tobytes() for image in images[plan.order.numpy() == 3]}
    assert (plan.order == 3).sum() == 200 and len(kinds) > 50


@pytest.mark.parametrize("room", [None, 10**9, 1000])
def test_where_the_pixels_stay_changes_no_image(tiny, room):
    spec = AugmentSpec(pad=2, flip="alternating", cutout=3)
    plan = augment.draw(spec, len(tiny.train), 16, seed=3, epoch=1)
    source = Feed(spec, tiny, "cpu", 3, max_memory=room)
    assert (source._resident is None) == (room == 1000)
    batches = source.batches(1, plan, torch.arange(len(plan.order)).split(40))
    images = torch.cat(list(every(batches)))
    pixels = torch.from_numpy(tiny.train.pixels)
    fill = augment.fill_colour(spec, tiny.mean)
    rows = torch.from_numpy(tiny.train.rows)[plan.order]
    torch.testing.assert_close(
        images, augment.apply(spec, pixels, rows, plan.order, plan, fill), rtol=0, atol=0
    )


def weights(tiny, recipe, machine, first, last, state=None):
    """The state after step `last`, from a fresh `fit` at step `first`."""
    state = state or states.create(recipe, tiny, machine, seed=0)
    source = Feed(recipe.augment, tiny, "cpu", 0, "albumentations")
    steps = fit(state, tiny, recipe, machine, seed=0, feed=source)
    for _ in range(last - first):
        next(steps)
    return state


@pytest.mark.parametrize(
    "field", [{"erasing": 0.5}, {"policy": "trivial"}, {"contrast": 0.1}, {"mixup": 0.2}]
)
def test_what_the_references_pipeline_has_not_is_refused(field):
    with pytest.raises(RecipeError, match=rf"albumentations: .* augment\.{next(iter(field))};"):
        feed.check("albumentations", AugmentSpec(**field))


def test_going_on_amid_an_epoch_is_exact(tiny, make_recipe, machine, monkeypatch):
    monkeypatch.setattr(pipeline, "usable_cores", lambda: 0)
    recipe = make_recipe("augment.flip=random")
    whole = weights(tiny, recipe, machine, 0, 5)
    half = weights(tiny, recipe, machine, 0, 2)
    weights(tiny, recipe, machine, 2, 5, half)
    for name, tensor in whole.tensors().items():
        assert torch.equal(tensor, half.tensors()[name]), name


def test_a_run_remembers_its_backend(monkeypatch, tmp_path):
    monkeypatch.setattr(estimate, "ENOUGH_SECONDS", 0)
    settings = {"model.width": 2, "schedule.peak_epoch": 0.02, "augment.flip": "random"}
    options = {"precision": "fp32", "threads": 1, "quiet": True}
    run = onecycle.train(
        "davidnet",
        epochs=0.05,
        settings=settings,
        augment_backend="albumentations",
        max_memory="1MB",
        out=tmp_path / "run",
        **options,
    )
    environment = files.read_json(run.path / "environment.json")
    assert environment["augment_backend"] == "albumentations"
    assert environment["max_memory"] == "1MB"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"augment_backend": "torchvision"}, "choose own or albumentations"),
        (
            {"augment_backend": "albumentations", "settings": {"augment.flip": "alternating"}},
            "augment.flip=random",
        ),
        ({"max_memory": "2"}, "500MB or 2GB"),
        ({"max_memory": "-1GB"}, "500MB or 2GB"),
    ],
)
def test_what_cannot_be_is_refused_before_the_data_is_read(options, said):
    with pytest.raises(RecipeError) as caught:
        onecycle.train("davidnet", data="no-such-folder", **options)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_library_is_named(monkeypatch):
    def missing(module):
        raise ModuleNotFoundError(module)

    monkeypatch.setattr(errors.importlib, "import_module", missing)
    with pytest.raises(MissingExtraError, match=r"onecycle\[albumentations\]"):
        feed.check("albumentations", AugmentSpec())


def test_sizes_of_memory():
    assert [limit(text) for text in ("500MB", "2GB", "1.5 gb".replace(" ", ""))] == [
        500_000_000,
        2_000_000_000,
        1_500_000_000,
    ]


def test_a_part_without_images_is_empty(marked):
    """Of several processes, one may have nothing of a short batch."""
    none = torch.arange(0)
    parts, fill = [(none, none)], np.zeros(3, np.uint8)
    (images,) = pipeline.batches(AugmentSpec(), marked.train, fill, 0, 0, parts, workers=0)
    assert images.shape == (0, SIZE, SIZE, 3) and images.dtype == torch.uint8
