"""Duplicates are found whatever was done to the image, and images that only look alike are not."""

import io

import networkx
import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance

from onecycle.datasets import duplicates, signature
from onecycle.datasets.dataset import Dataset, Split
from onecycle.datasets.duplicates import Duplicates, Pair, find
from onecycle.datasets.load import load


def photographs(count, size=32, seed=0):
    """Images with as much structure at each scale as photographs have: (count, size, size, 3)."""
    draw = np.random.default_rng(seed)

    def photograph():
        total = np.zeros((size, size, 3))
        grey = 0.8  # of the structure is the same in all channels
        for cells in (2, 4, 8, 16, size):
            noise = draw.normal(0, 1, (cells, cells, 3))
            noise = grey * noise[..., :1] + (1 - grey) * noise
            for channel in range(3):
                plane = Image.fromarray(noise[..., channel].astype(np.float32))
                total[..., channel] += np.asarray(plane.resize((size, size), Image.BICUBIC))
        return np.clip(128 + 35 * total, 0, 255).astype(np.uint8)

    return np.stack([photograph() for _ in range(count)])


def split(images, labels=None):
    labels = np.zeros(len(images), np.int64) if labels is None else np.array(labels)
    return Split(np.ascontiguousarray(images), np.arange(len(images)), labels)


def dataset(train, test, train_labels=None, test_labels=None):
    parts = split(train, train_labels), split(test, test_labels)
    return Dataset("made", ("a", "b"), *parts, digest="made")


def jpeg(image):
    content = io.BytesIO()
    image.save(content, "JPEG", quality=75)
    return Image.open(content)


def cropped(image):
    side = image.width
    return image.resize(image.size, Image.BICUBIC, box=(0.04 * side, 0.04 * side, side, side))


CHANGES = {
    "compressed": jpeg,
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.7),
    "less contrast": lambda image: ImageEnhance.Contrast(image).enhance(0.6),
    "tinted": lambda image: Image.fromarray((image * np.array([1, 0.9, 0.7])).astype(np.uint8)),
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "mirrored and compressed": lambda image: jpeg(image.transpose(0)),
    "cropped": cropped,
}


@pytest.mark.parametrize("size", [16, 32, 64, 128])
def test_a_changed_image_is_found_at_every_size(size):
    train = photographs(80, size)
    test = [
        np.asarray(change(Image.fromarray(image)))
        for image, change in zip(train, CHANGES.values(), strict=False)
    ]
    found = find(dataset(train, np.stack(test)))
    assert found.exact == ()
    names = list(CHANGES)
    assert {(pair.first, names[pair.second - 80]) for pair in found.near} == set(enumerate(names))
    for pair in found.near:
        assert pair.mirrored == names[pair.second - 80].startswith("mirrored")
        assert duplicates.CONFIRMED <= pair.likeness < 1


def test_unrelated_photographs_are_no_duplicates():
    assert find(dataset(photographs(300), photographs(100, seed=1))) == Duplicates((), ())


def test_flat_images_match_only_themselves():
    draw = np.random.default_rng(0)
    flat = np.full((60, 32, 32, 3), np.arange(60, dtype=np.uint8)[:, None, None, None])
    noisy = draw.integers(127, 130, (60, 32, 32, 3), dtype=np.uint8)
    ramp = np.linspace(0, 40, 32)[:, None, None] + np.arange(20)[:, None, None, None]
    smooth = np.broadcast_to(ramp, (20, 32, 32, 3)).astype(np.uint8)
    found = find(dataset(np.concatenate([flat, noisy, smooth]), flat[:1]))
    assert found == Duplicates(((0, 140),), ())


def test_flat_images_have_no_signature():
    images = np.concatenate([np.full((2, 32, 32, 3), 9, np.uint8), photographs(5)])
    images[1, ::2] += 3
    found = signature.signatures([signature.frequencies(images)])
    structure = (found.even.abs().sum(1) + found.odd.abs().sum(1)).tolist()
    assert structure[:2] == [0, 0] and min(structure[2:]) > 1


def test_digits_look_alike_and_yet_are_few_duplicates():
    digits = load("digits")
    found = find(digits)
    labels = np.concatenate([digits.train.labels, digits.test.labels])
    assert found.exact == ()
    assert 0 < len({pair.first for pair in found.near}) < 0.2 * len(labels)
    assert all(labels[pair.first] == labels[pair.second] for pair in found.near)


def test_frames_of_few_scenes_are_found_though_every_image_has_duplicates():
    draw = np.random.default_rng(0)
    scenes = photographs(6).astype(float)
    frames = np.repeat(scenes, 20, axis=0) + draw.normal(0, 6, (120, 32, 32, 3))
    frames = np.clip(frames, 0, 255).astype(np.uint8)
    found = find(dataset(frames[::2], frames[1::2]))
    scene = np.concatenate([np.arange(120)[::2], np.arange(120)[1::2]]) // 20
    assert all(scene[pair.first] == scene[pair.second] for pair in found.near)
    assert len(np.concatenate(duplicates.leaked(dataset(frames[::2], frames[1::2]), found))) == 60


def test_thousands_of_copies_are_one_group():
    images = photographs(5)
    train = np.concatenate([images[:4], np.repeat(images[:1], 3000, axis=0)])
    found = find(dataset(train, images[[0, 4]]))
    assert found.exact == ((0, *range(4, 3005)),)
    assert found.near == ()


def test_very_many_near_copies_give_few_pairs_each():
    draw = np.random.default_rng(0)
    copies = photographs(1).astype(float) + draw.normal(0, 5, (400, 32, 32, 3))
    copies = np.concatenate([np.clip(copies, 0, 255).astype(np.uint8), photographs(50, seed=1)])
    found = find(dataset(copies, copies[:0]))
    assert 400 <= len(found.near) <= 8 * 400
    assert duplicates.families(found) == [list(range(400))]


def test_the_best_pairs_of_each_image_with_each_part_are_looked_at():
    draw = np.random.default_rng(0)
    every = np.array([(i, j) for i in range(40) for j in range(i + 1, 40)])
    cosines = draw.random(len(every)).astype(np.float32)
    expected = set()
    for image in range(40):
        for part in (range(25), range(25, 40)):
            ends = enumerate(map(set, every.tolist()))
            of_it = [k for k, pair in ends if image in pair and (pair - {image}) & set(part)]
            expected |= set(sorted(of_it, key=lambda k: -cosines[k])[:8])
    kept = duplicates._foremost(every[:, 0], every[:, 1], cosines, 25)
    assert set(np.flatnonzero(kept).tolist()) == expected


@pytest.fixture(scope="module")
def some():
    images = photographs(90)
    mixed = np.concatenate([images, images[:30, :, ::-1], images[30:60] // 2])
    return signature.signatures(
        [signature.frequencies(mixed[:70]), signature.frequencies(mixed[70:])]
    )


def test_blocks_find_what_one_product_finds(monkeypatch, some):
    straight = some.even @ some.even.T + some.odd @ some.odd.T
    flipped = some.even @ some.even.T - some.odd @ some.odd.T
    assert torch.diagonal(straight).sub(1).abs().max() < 1e-5
    alike = torch.maximum(straight, flipped).triu(1) > some.threshold
    expected = set(map(tuple, alike.nonzero().tolist()))
    assert len(expected) >= 60
    monkeypatch.setattr(signature, "BLOCK", 32)
    told = []
    rows, columns, cosines = signature.candidates(some, lambda *report: told.append(report))
    torch.testing.assert_close(cosines, torch.maximum(straight, flipped)[rows, columns])
    assert set(zip(rows.tolist(), columns.tolist(), strict=True)) == expected
    assert torch.equal(signature.mirrored(some, rows, columns), (flipped > straight)[rows, columns])
    assert told == [(i, 15) for i in range(1, 16)]


def test_of_very_many_matches_the_best_of_each_row_and_column_are_kept():
    alike = torch.rand(30, 40, generator=torch.Generator().manual_seed(0))
    expected = set()
    for row in range(30):
        expected |= {
            (row, column) for column in sorted(range(40), key=lambda c: alike[row, c])[-8:]
        }
    for column in range(40):
        expected |= {
            (row, column) for row in sorted(range(30), key=lambda r: alike[r, column])[-8:]
        }
    expected = {place for place in expected if alike[place] > 0.7}
    rows, columns = signature._best(alike, 0.7)
    assert set(zip(rows.tolist(), columns.tolist(), strict=True)) == expected
    assert len(expected) < (alike > 0.7).sum()


def test_mirroring_an_image_negates_its_odd_part_alone():
    images = photographs(40)
    both = signature.signatures(
        [signature.frequencies(np.concatenate([images, images[:, :, ::-1]]))]
    )
    torch.testing.assert_close(both.even[:40], both.even[40:], atol=1e-3, rtol=0)
    torch.testing.assert_close(both.odd[:40], -both.odd[40:], atol=1e-3, rtol=0)


def test_likeness_is_the_correlation_of_details_at_the_best_shift():
    one, two = photographs(6), photographs(6, seed=1)
    two[:3] = np.roll(one[:3], (2, -3), (1, 2))

    def details(image):
        grey = np.pad(image.astype(float).mean(2), 2, mode="edge")
        windows = np.lib.stride_tricks.sliding_window_view(grey, (5, 5))
        return grey[2:-2, 2:-2] - windows.mean((2, 3))

    def best(a, b):
        a, b = details(a), details(b)
        middle = a[4:28, 4:28]
        values = []
        for y in range(9):
            for x in range(9):
                window = b[y : y + 24, x : x + 24]
                both = np.sqrt((middle**2).mean() * (window**2).mean())
                values.append((middle * window).mean() / (both + duplicates.FAINT**2))
        return max(values)

    expected = [best(a, b) for a, b in zip(one, two, strict=True)]
    np.testing.assert_allclose(duplicates.likeness(one, two), expected, atol=1e-4)
    assert min(expected[:3]) > 0.8 > 0.5 > max(expected[3:])


def test_leaks_and_families_follow_groups_and_pairs():
    """Against plain sets and networkx, on random links among 30 training and 10 test images."""
    data = dataset(photographs(30, 16), photographs(10, 16))
    draw = np.random.default_rng(0)
    for _ in range(50):
        order = draw.permutation(40)
        exact = tuple(tuple(sorted(order[i : i + 3].tolist())) for i in (0, 3, 6))
        alone = [group[0] for group in exact] + order[9:].tolist()
        near = [tuple(sorted(draw.choice(alone, 2, replace=False).tolist())) for _ in range(6)]
        found = Duplicates(exact, tuple(Pair(a, b, 0.9, False) for a, b in near))
        members = {group[0]: set(group) for group in exact}
        same = {p for group in exact for p in group if p >= 30 and min(group) < 30}
        alike = set()
        for a, b in near:
            one, two = members.get(a, {a}), members.get(b, {b})
            alike |= {p for p in one if p >= 30 and min(two) < 30}
            alike |= {p for p in two if p >= 30 and min(one) < 30}
        told = [{int(p) + 30 for p in places} for places in duplicates.leaked(data, found)]
        assert told == [same, alike - same]
        graph = networkx.Graph(near)
        for group in exact:
            networkx.add_path(graph, group)
        families = [sorted(family) for family in networkx.connected_components(graph)]
        assert sorted(duplicates.families(found)) == sorted(families)


def test_images_are_fetched_from_both_parts_in_the_given_order(tiny):
    whole = np.concatenate([tiny.train.images(), tiny.test.images()])
    places = np.array([100, 3, 127, 0, 96])
    assert np.array_equal(duplicates.images(tiny, places), whole[places])
