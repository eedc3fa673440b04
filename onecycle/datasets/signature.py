"""Near duplicates among many images: few numbers an image, compared by one dot product a pair.

An image's signature is its lowest frequencies, decorrelated over the data set, so that what all
images share (a sky, a white ground, the stroke of a digit) counts little: the whitened features of
Hariharan, Malik and Ramanan (ECCV 2012), here of a cosine transform. It is of unit length whatever
the brightness and contrast, and in two parts: mirroring an image negates `odd` alone, so that
even·even + |odd·odd| compares with the mirrored image too. A library's search for neighbours
(scikit-learn's) would need twice the work for each of the two.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from onecycle.datasets.source import Pixels

GRID = 8  # lowest frequencies in each direction
FLAT = 2.0  # grey levels (RMS): below that an image has no structure to compare
SAMPLE = 4096  # images from which the correlations are taken
SAME_KIND = 0.7  # of images in the sample that are more alike than this only one counts
PRIOR = 200  # images' weight of the correlations of natural images, 1/f, in every data set's
CHANCE = 1e-15  # that two unrelated signatures pass for alike
HIGHEST = 0.95  # threshold, however few dimensions the images have
BLOCK = 2048  # images whose signatures are compared at once with as many others
MATCHES = 8  # the best of one image that are looked at, of very many

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Signatures:
    """Of N images: `even` and `odd` (N, k) fp32; pairs over `threshold` are candidates."""

    even: Tensor
    odd: Tensor
    threshold: float


def frequencies(images: Pixels) -> Tensor:
    """The lowest GRID x GRID frequencies of each channel: (N, 3, GRID, GRID) of (N, H, H, 3)."""
    from scipy.fft import dct  # slow to import

    basis = torch.from_numpy(dct(np.eye(images.shape[1]), axis=0, norm="ortho")[:GRID]).float()
    found = basis @ torch.from_numpy(images).permute(0, 3, 1, 2).float() @ basis.T
    found[:, :, 0, 0] = 0  # brightness and tint
    flat = found.flatten(1).norm(dim=1) < FLAT * images[0].size ** 0.5
    found[flat] = 0
    return found


def signatures(chunks: Iterable[Tensor]) -> Signatures:
    """The signatures of images whose `frequencies` come in `chunks`.

    The threshold depends on how many dimensions unrelated images fill. Looked at in pictures:
    0.63 in CIFAR-10, and 0.93 in the digits, which all look alike.
    """
    values = _unit(torch.cat(list(chunks)))
    parts = (values, _distinct(values), _natural().expand_as(values[:1]))
    (even, even_known), (odd, odd_known) = (
        _decorrelated(*(part[..., start::2].flatten(1) for part in parts))
        for start in (0, 1)  # the columns of frequencies that mirroring keeps, and the others
    )
    whole = _unit(torch.cat([even, odd], 1))
    return Signatures(
        whole[:, : even.shape[1]].contiguous(),
        whole[:, even.shape[1] :].contiguous(),
        _threshold(_unit(torch.cat([even_known, odd_known], 1))),
    )


def candidates(
    found: Signatures, progress: Progress | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Rows (n,) and columns (n,), row < column, of the pairs over the threshold, and their cosines.

    The cosine is that with the mirrored image, if that is larger.

    All pairs are compared, in blocks: the time grows with the square of the number of images,
    the memory does not. Where an image has very many matches the best of each block are given.
    `progress` is told how many blocks are done, and of how many.
    """
    count = len(found.even)
    blocks = [(i, j) for i in range(0, count, BLOCK) for j in range(i, count, BLOCK)]
    buffer = torch.empty(BLOCK * BLOCK)
    rows, columns = [torch.empty(0, dtype=torch.int64)], [torch.empty(0, dtype=torch.int64)]
    cosines = [torch.empty(0)]
    for done, (i, j) in enumerate(blocks, 1):
        upper, left = slice(i, i + BLOCK), slice(j, j + BLOCK)
        shape = (min(BLOCK, count - i), min(BLOCK, count - j))
        alike = buffer[: shape[0] * shape[1]].view(shape)
        torch.mm(found.odd[upper], found.odd[left].T, out=alike)
        alike.abs_().addmm_(found.even[upper], found.even[left].T)
        if i == j:
            alike.triu_(1)
        row, column = _best(alike, found.threshold)
        rows.append(row + i)
        columns.append(column + j)
        cosines.append(alike[row, column])
        if progress:
            progress(done, len(blocks))
    return torch.cat(rows), torch.cat(columns), torch.cat(cosines)


def mirrored(found: Signatures, rows: Tensor, columns: Tensor) -> Tensor:
    """(n,) bool: which of the pairs are more alike when one of the two is mirrored."""
    return (found.odd[rows] * found.odd[columns]).sum(1) < 0


def _unit(values: Tensor) -> Tensor:
    """`values` (N, ...) with each row of length one, or zero if it is."""
    return F.normalize(values.flatten(1), eps=1e-9).view(values.shape)


def _natural() -> Tensor:
    """The variance of each frequency in natural images, which falls as 1/f²; (GRID, GRID)."""
    line = torch.arange(GRID)
    squared = line[:, None] ** 2 + line**2
    variance = torch.where(squared > 0, 1 / squared.clamp_min(1), 0)
    return variance / (3 * variance.sum())


def _decorrelated(values: Tensor, sample: Tensor, natural: Tensor) -> tuple[Tensor, Tensor]:
    """`values` and `sample`, (n, k), such that the columns of `sample` are not correlated.

    `natural` (1, k) is the variance to expect of each; columns that have none are left out.
    """
    used = natural[0] > 0
    square = sample.T @ sample + PRIOR * torch.diag(natural[0])
    factor = torch.linalg.cholesky(square[used][:, used] / (len(sample) + PRIOR))
    turn: Tensor = torch.linalg.inv(factor).T
    return values[:, used] @ turn, sample[:, used] @ turn


def _distinct(values: Tensor) -> Tensor:
    """A sample spread over `values` without the flat ones, and one only of those much alike.

    Otherwise a scene that is there a hundred times would count as what all images share.
    """
    chosen = values[values.flatten(1).any(1)]
    chosen = chosen[torch.linspace(0, len(chosen) - 1, min(SAMPLE, len(chosen))).long()]
    plain = _unit(chosen / _natural().sqrt().clamp_min(1e-9)).flatten(1)
    return chosen[~((plain @ plain.T).triu(1) > SAME_KIND).any(0)]


def _threshold(known: Tensor) -> float:
    """The cosine that two random directions reach by CHANCE, in as many dimensions as `known` fill.

    That is the bound (1 - cosine²)^(dimensions / 2) on the cap of a sphere.
    """
    count, most = known.shape
    pairs = count * (count - 1)
    mean_square = float((known @ known.T).square().sum() - count) / pairs if pairs else 0.0
    dimensions = 1 / max(mean_square, 1 / most)
    return float(min(HIGHEST, (1 - CHANCE ** (2 / dimensions)) ** 0.5))


def _best(alike: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """Places over the threshold in a block: the best of each row, and the best of each column."""
    rows = (alike.amax(1) > threshold).nonzero()[:, 0]
    if not len(rows):
        return rows, rows
    some = alike[rows]
    columns = (some > threshold).any(0).nonzero()[:, 0]
    some = some[:, columns]
    kept = torch.zeros_like(some, dtype=torch.bool)
    for dimension in (0, 1):
        best = some.topk(min(MATCHES, some.shape[dimension]), dimension).indices
        kept.scatter_(dimension, best, True)
    row, column = (kept & (some > threshold)).nonzero(as_tuple=True)
    return rows[row], columns[column]
