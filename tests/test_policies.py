"""Policies, erasing and mixing: drawn for each image by seed and epoch, as published."""

import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageEnhance, ImageOps

from onecycle import errors
from onecycle.datasets import augment, mixing, policies
from onecycle.datasets.mixing import Answers
from onecycle.errors import MissingExtraError
from onecycle.recipe.schema import AugmentSpec
from onecycle.training import loop
from onecycle.training.loop import fit
from onecycle.training.state import create

EVERYTHING = {"pad": 2, "flip": "random", "policy": "trivial", "colour": 0.4, "erasing": 0.5}
EVERYTHING |= {"mixup": 0.2, "cutmix": 1.0}
SETTINGS = tuple(f"augment.{key}={value}" for key, value in EVERYTHING.items())
COUNT, SIZE = 4000, 16
FILL = torch.tensor([200, 100, 50], dtype=torch.uint8)


def photo(size=32):
    """A smooth picture with noise, (size, size, 3) uint8."""
    line = np.linspace(0, 200, size)
    smooth = np.stack([line[:, None] + 0 * line, 0 * line[:, None] + line, line[::-1, None] + line])
    noise = np.random.default_rng(0).integers(0, 50, (size, size, 3))
    return (smooth.transpose(1, 2, 0) * 0.5 + noise + 20).astype(np.uint8)


def operated(name, strength, image):
    """`image` after one operation of TrivialAugment, as float on the 0-255 scale."""
    policy = policies.Policy(
        torch.tensor([policies.OPERATIONS.index(name)]),
        torch.tensor([strength]),
        torch.zeros(1, 4),
    )
    images = torch.from_numpy(image)[None]
    spec = AugmentSpec(policy="trivial")
    return policies.apply(spec, images, policy, torch.tensor([0]), FILL)[0].numpy()


ENHANCED = {
    "brightness": ImageEnhance.Brightness,
    "contrast": ImageEnhance.Contrast,
    "saturation": ImageEnhance.Color,
    "sharpness": ImageEnhance.Sharpness,
}


@pytest.mark.parametrize("strength", [-1.0, -0.4, 0.0, 0.5, 1.0])
@pytest.mark.parametrize("name", ENHANCED)
def test_shades_are_pillows(name, strength):
    image = photo()
    expected = ENHANCED[name](Image.fromarray(image)).enhance(1 + 0.99 * strength)
    found = operated(name, strength, image)
    assert np.abs(found - np.asarray(expected)).max() < 2


@pytest.mark.parametrize(
    ("name", "strength", "pillow"),
    [
        ("auto_contrast", 1.0, ImageOps.autocontrast),
        ("equalize", 1.0, ImageOps.equalize),
        ("posterize", 1.0, lambda image: ImageOps.posterize(image, 2)),
        ("posterize", -0.5, lambda image: ImageOps.posterize(image, 5)),
        ("solarize", 0.5, lambda image: ImageOps.solarize(image, 128)),
        ("identity", 1.0, lambda image: image),
    ],
)
def test_operations_are_pillows(name, strength, pillow):
    image = photo()
    found = operated(name, strength, image)
    assert np.abs(found - np.asarray(pillow(Image.fromarray(image)))).max() <= 1.01


def test_moves_go_where_they_say_and_fill_what_comes_into_view():
    image = photo()
    right = operated("translate_x", 0.5, image)  # a quarter of the side
    assert np.allclose(right[:, 8:], image[:, :-8], atol=0.01)
    assert np.allclose(right[:, :8], FILL.numpy(), atol=0.01)
    down = operated("translate_y", 0.5, image)
    assert np.allclose(down[8:], image[:-8], atol=0.01)
    turned = operated("rotate", 90 / 135, image)
    assert np.allclose(turned, np.rot90(image, 1), atol=0.1)
    sheared = operated("shear_x", 1 / 0.99, photo(33))
    assert np.allclose(sheared[16], photo(33)[16], atol=0.1)
    assert np.allclose(sheared[26, 10:], photo(33)[26, :-10], atol=0.1)
    for name in policies.MOVES:
        assert np.allclose(operated(name, 0.0, image), image, atol=0.1)


def test_a_flat_image_stays_as_it_is():
    flat = np.full((16, 16, 3), 90, dtype=np.uint8)
    for name in ("auto_contrast", "equalize", "contrast"):
        assert np.allclose(operated(name, 0.5, flat), flat, atol=0.01), name


def test_each_operation_is_as_likely_and_of_any_strength():
    plan = augment.draw(AugmentSpec(policy="trivial"), 28_000, SIZE, seed=0, epoch=0)
    counts = np.bincount(plan.policy.operation, minlength=len(policies.OPERATIONS))
    assert len(counts) == 14 and np.abs(counts - 2000).max() < 200
    assert len(np.unique(plan.policy.strength.abs())) == 31
    assert abs(float(plan.policy.strength.mean())) < 0.02


def test_colour_jitter_stays_near_and_moves_hue():
    image = np.zeros((1, 16, 16, 3), dtype=np.uint8)
    image[..., 0] = 200
    policy = policies.Policy(
        torch.zeros(1, dtype=torch.int64), torch.zeros(1), torch.tensor([[0, 0, 0, 2 / 3 * 2]])
    )
    spec = AugmentSpec(colour=1.0)
    found = policies.apply(spec, torch.from_numpy(image), policy, torch.tensor([0]), FILL)
    # A third of a turn makes red green.
    assert np.allclose(found[0, 0, 0], [0, 200, 0], atol=1)


# What is drawn


def drawn(spec, epoch=0, seed=0, count=COUNT):
    return augment.draw(spec, count, SIZE, seed, epoch)


def test_choices_are_by_seed_and_epoch_and_move_no_other():
    spec = AugmentSpec(**EVERYTHING)
    one, again, later = drawn(spec), drawn(spec), drawn(spec, epoch=1)
    for name in ("operation", "strength", "colour"):
        assert torch.equal(getattr(one.policy, name), getattr(again.policy, name))
        assert not torch.equal(getattr(one.policy, name), getattr(later.policy, name))
    for name in ("partner", "pixels", "box", "own"):
        assert torch.equal(getattr(one.mixing, name), getattr(again.mixing, name))
        assert not torch.equal(getattr(one.mixing, name), getattr(later.mixing, name))
    plain = drawn(AugmentSpec(pad=2, flip="random"))
    assert plain.policy is None and plain.mixing is None
    for name in ("order", "top", "left", "flip"):
        assert torch.equal(getattr(one, name), getattr(plain, name))


def test_the_batch_and_how_it_is_shared_out_decide_nothing():
    spec = AugmentSpec(**EVERYTHING)
    draw = np.random.default_rng(0)
    pixels = torch.from_numpy(draw.integers(0, 256, (70, SIZE, SIZE, 3), dtype=np.uint8))
    rows, labels = torch.arange(5, 65), torch.arange(60) % 7

    def originals(positions):
        return pixels, rows[positions]

    plan = drawn(spec, count=60)
    whole = augment.given(spec, originals, plan, torch.arange(60), FILL)
    assert whole.dtype == torch.float32 and whole.min() >= 0 and whole.max() <= 255
    for size in (1, 7, 32):
        places = torch.arange(60).split(size)
        parts = [augment.given(spec, originals, plan, p, FILL) for p in places]
        torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=0.01)
        found = [augment.answers(labels, plan, p) for p in places]
        assert torch.equal(
            torch.cat([a.others for a in found]), labels[plan.order[plan.mixing.partner]]
        )


def test_erasing_is_of_the_stated_size_and_frequency():
    plan = drawn(AugmentSpec(erasing=0.25), count=20_000)
    top, left, height, width = plan.erased.numpy().T
    some = height > 0
    assert abs(some.mean() - 0.25) < 0.01
    share = (height * width)[some] / SIZE**2
    assert share.min() > 0.005 and share.max() < 0.36 and abs(share.mean() - 0.175) < 0.01
    assert (top >= 0).all() and (top + height <= SIZE).all() and (left + width <= SIZE).all()
    pixels = torch.zeros((20_000, SIZE, SIZE, 3), dtype=torch.uint8)
    every = torch.arange(500)
    images = augment.apply(AugmentSpec(erasing=0.25), pixels, every, every, plan, FILL)
    filled = (images == FILL).all(3).sum((1, 2))
    assert torch.equal(filled, torch.from_numpy((height * width)[:500]))


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.4, 0), (0, 1.0), (0.4, 1.0)])
def test_a_mixed_image_and_its_labels_have_the_same_parts(mixup, cutmix):
    spec = AugmentSpec(mixup=mixup, cutmix=cutmix)
    plan = drawn(spec)
    assert sorted(plan.mixing.partner.tolist()) == list(range(COUNT))
    assert plan.mixing.own.min() >= 0.5 and plan.mixing.own.mean() < 0.95
    cut = (plan.mixing.box.sum(1) > 0).float().mean()
    assert (cut > 0.9, cut == 0, 0.4 < cut < 0.6).index(True) == (
        2 if mixup and cutmix else int(not cutmix)
    )
    places = torch.arange(COUNT)
    shape = (COUNT, SIZE, SIZE, 3)
    own, other = torch.full(shape, 240, dtype=torch.uint8), torch.zeros(shape, dtype=torch.uint8)
    mixed = mixing.mix(own, other, plan.mixing, places)
    share = mixed.mean((1, 2, 3)) / 240
    torch.testing.assert_close(share, plan.mixing.own, rtol=0, atol=1e-5)


# In training


def test_the_loss_of_mixed_images_is_that_of_mixed_labels():
    draw = torch.Generator().manual_seed(0)
    logits, own = torch.randn(20, 5, generator=draw), torch.rand(20, generator=draw)
    labels, others = torch.randint(5, (2, 20), generator=draw)
    soft = own[:, None] * F.one_hot(labels, 5) + (1 - own[:, None]) * F.one_hot(others, 5)

    class Work:
        weights = None
        recipe = type("R", (), {"label_smoothing": 0.1})

    found = loop._summed_loss(Work, logits, Answers(labels, others, own))
    expected = F.cross_entropy(logits, soft, reduction="sum", label_smoothing=0.1)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("balance", ["none", "sampling"])
def test_going_on_with_policies_changes_nothing(tiny, make_recipe, machine, balance):
    recipe = make_recipe(*SETTINGS, f"balance={balance}", "epochs=2")
    whole = create(recipe, tiny, machine, seed=0)
    losses = []
    for step in fit(whole, tiny, recipe, machine, seed=0):
        losses.append(float(step.loss))
        if step.step == 2:
            kept = {name: value.clone() for name, value in whole.tensors().items()}
    assert len(losses) == 6 and np.isfinite(losses).all()
    again = create(recipe, tiny, machine, seed=9)
    again.load(kept, 2)
    assert [float(s.loss) for s in fit(again, tiny, recipe, machine, seed=0)] == losses[2:]
    for name, value in whole.tensors().items():
        assert torch.equal(value, again.tensors()[name]), name


def test_without_kornia_the_extra_is_named(tiny, make_recipe, machine, monkeypatch):
    monkeypatch.setitem(sys.modules, "kornia.enhance", None)
    recipe = make_recipe("augment.policy=trivial")
    with pytest.raises(MissingExtraError, match=r"pip install 'onecycle\[policies\]'") as caught:
        next(fit(create(recipe, tiny, machine, 0), tiny, recipe, machine, 0))
    assert caught.value.exit_code == 5 and isinstance(caught.value, errors.OnecycleError)
    mixed = make_recipe("augment.mixup=0.2", "augment.erasing=0.5")  # need no kornia
    next(fit(create(mixed, tiny, machine, 0), tiny, mixed, machine, 0))


def test_torchvision_is_never_imported():
    operated("rotate", 1.0, photo())
    operated("sharpness", 1.0, photo())
    assert not any(name.split(".")[0] == "torchvision" for name in sys.modules)
