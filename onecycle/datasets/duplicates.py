"""Images that are there more than once: the same pixels, or nearly so.

Near duplicates come from one photograph by mirroring, compressing, changing brightness, contrast or
tint, or by cropping or turning it a little (a shift by 2 of 32 pixels is too much). Their
signatures are compared for all pairs, and those alike are confirmed on the pixels. In CIFAR-10 (its
copy as JPEG) so 350 test images have one in the training part: 191 of the 249 that ciFAIR (Barz and
Denzler 2020) calls near duplicates and 11 of its 37 very similar ones, and 148 more. Looked at as
pictures some 12 of these are wrong: ships on a horizon, horses in profile. A little below CONFIRMED
every third pair would be.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from onecycle.datasets import signature
from onecycle.datasets.dataset import CHUNK, Dataset
from onecycle.datasets.source import Pixels

SIDE = 32  # pixels, to which larger images are reduced before their details are compared
SHIFT = 8  # one may be shifted against the other by this part of its side: 4 of 32 pixels
DETAIL = 5  # pixels: what differs from the mean of that many squared is detail
FAINT = 1.0  # grey levels (RMS): details below that are noise
CONFIRMED = 0.65  # least correlation of the details
BYTES = 2**24  # of images that are worked on at once


@dataclass(frozen=True)
class Pair:
    """Two near duplicates: positions in the training part followed by the test part."""

    first: int
    second: int
    likeness: float  # correlation of their details, 0 to 1
    mirrored: bool


@dataclass(frozen=True)
class Duplicates:
    """What `find` found: groups of the same pixels, and near pairs, the most alike first.

    In `near` a group is there as its first image, and of an image's near duplicates in each part
    the best eight.
    """

    exact: tuple[tuple[int, ...], ...]
    near: tuple[Pair, ...]


def find(dataset: Dataset, progress: Callable[[int, int], None] | None = None) -> Duplicates:
    """All duplicates in the training and the test part of `dataset`.

    CIFAR-10 takes 10 to 30 seconds on two cores. Time grows with the square of the number of
    images, memory by 4 kB an image: 500,000 take about 70 times as long, and 2 GB. `progress` is
    told how much is done, and of how much.
    """
    groups = _same_pixels(dataset)
    distinct = np.array([group[0] for group in groups])
    at_once = _at_once(dataset)
    found = signature.signatures(
        signature.frequencies(images(dataset, distinct[start : start + at_once]))
        for start in range(0, len(distinct), at_once)
    )
    rows, columns, cosines = signature.candidates(found, progress)
    flipped = signature.mirrored(found, rows, columns).numpy()
    first, second = distinct[rows.numpy()], distinct[columns.numpy()]
    kept = _foremost(first, second, cosines.numpy(), len(dataset.train))
    pairs = _confirmed(dataset, first[kept], second[kept], flipped[kept])
    return Duplicates(tuple(group for group in groups if len(group) > 1), pairs)


def images(dataset: Dataset, positions: NDArray[np.int64]) -> Pixels:
    """The images (n, H, W, 3) at `positions` in the training part followed by the test part."""
    result = np.empty((len(positions), *dataset.train.pixels.shape[1:]), np.uint8)
    train = positions < len(dataset.train)
    result[train] = dataset.train.pixels[dataset.train.rows[positions[train]]]
    result[~train] = dataset.test.pixels[dataset.test.rows[positions[~train] - len(dataset.train)]]
    return result


def families(found: Duplicates) -> list[list[int]]:
    """The positions that exact and near duplicates link, directly or over others; largest first."""
    from scipy.cluster.hierarchy import DisjointSet  # slow to import

    linked = DisjointSet()
    links = [(group[0], other) for group in found.exact for other in group[1:]]
    for link in [*links, *((pair.first, pair.second) for pair in found.near)]:
        for position in link:
            linked.add(position)
        linked.merge(*link)
    return sorted(
        (sorted(family) for family in linked.subsets()), key=lambda each: (-len(each), each)
    )


def leaked(dataset: Dataset, found: Duplicates) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions in the test part: with the same pixels in the training part, and else with near.

    What a model remembers of those counts as test accuracy.
    """
    first_test = len(dataset.train)
    members = {group[0]: group for group in found.exact}

    def tested(group: tuple[int, ...], other: tuple[int, ...]) -> set[int]:
        trained = any(position < first_test for position in other)
        return {p - first_test for p in group if p >= first_test} if trained else set()

    exact: set[int] = set()
    near: set[int] = set()
    for group in found.exact:
        exact |= tested(group, group)
    for pair in found.near:
        one = members.get(pair.first, (pair.first,))
        two = members.get(pair.second, (pair.second,))
        near |= tested(two, one)  # the first is in the test part only if both are
    return np.array(sorted(exact), np.int64), np.array(sorted(near - exact), np.int64)


def likeness(first: Pixels, second: Pixels) -> NDArray[np.float32]:
    """The correlation of two images' details at the best shift, (n,) of twice (n, H, W, 3).

    Details are what is left of the grey image without its local mean: so neither a bright sky
    nor a frame makes two images alike.
    """
    one, two = _details(first), _details(second)
    side = one.shape[2]
    reach = side // SHIFT
    window = side - 2 * reach
    middle = F.pad(one[..., reach : side - reach, reach : side - reach], (reach,) * 4)
    products = torch.fft.irfft2(
        torch.fft.rfft2(middle).conj() * torch.fft.rfft2(two), s=(side, side)
    )
    shifts = torch.arange(-reach, reach + 1)
    products = products[:, 0, shifts][:, :, shifts] / window**2
    of_one = middle.square().sum((2, 3)).div(window**2)[..., None]
    of_two = F.avg_pool2d(two.square(), window, 1)[:, 0]
    found: NDArray[np.float32] = (
        (products / ((of_one * of_two).sqrt() + FAINT**2)).flatten(1).amax(1).numpy()
    )
    return found


def _details(pixels: Pixels) -> Tensor:
    """(n, 1, side, side) fp32: grey levels less their local mean."""
    grey = torch.from_numpy(pixels).float().mean(3)[:, None]
    grey = F.adaptive_avg_pool2d(grey, min(SIDE, grey.shape[2]))
    around = F.pad(grey, (DETAIL // 2,) * 4, mode="replicate")
    return grey - F.avg_pool2d(around, DETAIL, 1)


def _same_pixels(dataset: Dataset) -> list[tuple[int, ...]]:
    """The positions of each distinct image, in the order of the first."""
    groups: dict[bytes, list[int]] = defaultdict(list)
    position = 0
    for split in (dataset.train, dataset.test):
        for start in range(0, len(split), CHUNK):
            for image in split.images(start, start + CHUNK):
                groups[hashlib.sha256(image.data).digest()].append(position)
                position += 1
    return [tuple(group) for group in groups.values()]


def _foremost(
    first: NDArray[np.int64], second: NDArray[np.int64], cosines: NDArray[np.float32], tests: int
) -> NDArray[np.bool_]:
    """(n,) bool: the pairs among the best of one of their images with one of the parts.

    So that thousands of near copies give pairs by the thousand, not by the million. The test part
    begins at position `tests`.
    """
    key = 2 * np.concatenate([first, second]) + (np.concatenate([second, first]) >= tests)
    order = np.lexsort((-np.tile(cosines, 2), key))
    rank = np.arange(len(order)) - np.searchsorted(key[order], key[order])
    kept = np.zeros(len(first), bool)
    kept[order[rank < signature.MATCHES] % max(1, len(first))] = True
    return kept


def _at_once(dataset: Dataset) -> int:
    return max(1, BYTES // int(np.prod(dataset.train.pixels.shape[1:])))


def _confirmed(
    dataset: Dataset,
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    flipped: NDArray[np.bool_],
) -> tuple[Pair, ...]:
    """The pairs of positions whose details are alike enough, the most alike first."""
    pairs = []
    at_once = _at_once(dataset)
    for start in range(0, len(first), at_once):
        part = slice(start, start + at_once)
        one, two = images(dataset, first[part]), images(dataset, second[part])
        two[flipped[part]] = two[flipped[part], :, ::-1]
        pairs += [
            Pair(int(a), int(b), float(value), bool(mirror))
            for a, b, value, mirror in zip(
                first[part], second[part], likeness(one, two), flipped[part], strict=True
            )
            if value >= CONFIRMED
        ]
    return tuple(sorted(pairs, key=lambda pair: (-pair.likeness, pair.first, pair.second)))
