"""A step of Muon for one matrix in bf16 with AMX, one thread: momentum, Newton-Schulz, the weights.

The same as `training.muon` does in torch, whose small products take longer to be called than to be
computed, and more so in two threads. Polynomials of a Gram matrix are symmetric and commute, so
that its rows may stand for columns.
"""

import numpy as np
from numba import carray  # type: ignore[attr-defined]
from torch import Tensor

from onecycle.jit import address, compiled, pointer
from onecycle.model.compiled import momentum as of_numbers
from onecycle.model.compiled import tiles as t
from onecycle.model.compiled import vectors as v
from onecycle.model.compiled.meetings import FACTOR
from onecycle.model.compiled.passes import stored
from onecycle.model.compiled.places import WIDE, clear
from onecycle.model.compiled.products import begin, end, follow
from onecycle.model.compiled.room import room

TILE = t.ROWS * t.ROW  # bytes


def move(
    parameter: Tensor,
    gradient: Tensor,
    velocity: Tensor,
    momentum: float,
    rate: float,
    terms: tuple[float, float, float],
    iterations: int,
    eps: float,
) -> None:
    """Move `parameter` and its `velocity` by `gradient`, all in fp32.

    They lie in memory as matrices with a row for each of `parameter`'s first dimension, a multiple
    of 32 and not more than columns. `terms` are the polynomial's linear, cubic and quintic one,
    `eps` is added to the norm.
    """
    rows = len(parameter)
    columns = parameter.numel() // rows
    steps, blocks = -(-columns // WIDE), rows // WIDE
    of_matrices = parameter.data_ptr(), gradient.data_ptr(), velocity.data_ptr()
    numbers = np.array([momentum, rate, *terms, eps], np.float32)
    # The matrix in bf16 for both sides of a product, two sums, and three small ones for both sides.
    small, whole = rows * rows * 2, blocks * steps * FACTOR
    places = room(whole, whole, 4 * small, 3 * small, 3 * small)
    _move(t.configuration(), of_matrices, (rows, columns), numbers, iterations, places)


@compiled
def _move(config, of_matrices, shape, numbers, iterations, room):
    momentum, rate, linear, cubic, quintic, eps = numbers
    rows, columns = shape
    steps, blocks = -(-columns // WIDE), rows // WIDE
    of_ahead, of_right, of_sums, of_lefts, of_rights = room
    of_parameter, of_gradient, of_velocity = of_matrices
    parameter = carray(pointer(of_parameter), shape, np.float32)
    gradient = carray(pointer(of_gradient), shape, np.float32)
    velocity = carray(pointer(of_velocity), shape, np.float32)
    ahead = carray(pointer(of_ahead), (2 * blocks, steps, t.ROWS, WIDE), np.uint16)
    sums = carray(pointer(of_sums), (2, rows, rows), np.float32)
    if columns % WIDE:  # the last tiles have no numbers for all of their places
        for tile in range(2 * blocks):
            clear(of_ahead + (tile * steps + steps - 1) * TILE, TILE)
    norm = np.sqrt(push(parameter, gradient, velocity, momentum, ahead))
    scale = np.float32(np.sqrt(np.float32(rows)) / norm)
    size = rows * rows * 2  # of each of the matrices on the left and right
    gram, polynomial, total = 0, 1, 2  # their places among those
    t.configure(config)
    across(of_ahead, of_right, 2 * blocks, steps)
    products(of_ahead, of_right, blocks, blocks, steps, of_sums, 4 * rows)
    trace = np.float32(0)
    for r in range(rows):
        trace += sums[0, r, r]
    shrink = np.float32(1 / (np.sqrt(trace) + eps))
    first, second = sums[0].reshape(-1), sums[1].reshape(-1)
    multiply(first, shrink * shrink)
    for iteration in range(iterations):
        # sums[0] is the Gram matrix.
        both_sides(of_sums, of_lefts + gram * size, of_rights + gram * size, rows)
        products(of_lefts, of_rights, blocks, blocks, blocks, of_sums + 2 * size, 4 * rows)
        combine(second, quintic, first, cubic)
        for r in range(rows):
            sums[1, r, r] += linear
        left, other = of_lefts + polynomial * size, of_rights + polynomial * size
        both_sides(of_sums + 2 * size, left, other, rows)
        if iteration:
            products(left, of_rights + total * size, blocks, blocks, blocks, of_sums, 4 * rows)
            both_sides(of_sums, of_lefts + total * size, of_rights + total * size, rows)
        else:
            both_sides(of_sums + 2 * size, of_lefts + total * size, of_rights + total * size, rows)
        if iteration < iterations - 1:  # after the last nobody asks for it
            products(left, of_rights + gram * size, blocks, blocks, blocks, of_sums, 4 * rows)
            both_sides(of_sums, of_lefts + gram * size, of_rights + gram * size, rows)
            products(of_lefts, other, blocks, blocks, blocks, of_sums, 4 * rows)
    # The last total, and a pair of rows of the matrix for each two of its columns.
    for c in range(steps):
        for r in range(0, rows, 2):
            low = of_ahead + (r // t.ROWS * steps + c) * TILE + r % t.ROWS * t.ROW
            target = of_right + (c * blocks + r // WIDE) * FACTOR + r % WIDE // 2 * 2 * t.ROW
            v.paired(low, low + t.ROW, target)
    left = of_lefts + total * size
    factor = -rate * shrink
    for r in range(blocks):
        for c in range(steps):
            begin(of_sums, 4 * WIDE, True)
            follow(
                left + 2 * r * blocks * TILE, blocks, of_right + c * blocks * FACTOR, blocks, False
            )
            end(of_sums, 4 * WIDE)
            settle(parameter, sums.reshape(-1), r * WIDE, c * WIDE, scale, factor)
    t.release()


# Loops of their own, over a single index: of others numba makes no vectors.
@compiled
def multiply(numbers, factor):
    """`numbers` times `factor`, in place."""
    for k in range(len(numbers)):
        numbers[k] *= factor


@compiled
def combine(numbers, factor, others, other_factor):
    """`numbers` times `factor` plus `others` times theirs, in place of the first."""
    for k in range(len(numbers)):
        numbers[k] = factor * numbers[k] + other_factor * others[k]


@compiled
def push(parameter, gradient, velocity, momentum, ahead):
    """Nesterov's step of `velocity`, what lies ahead in tiles, and `parameter`'s sum of squares."""
    rows, columns = parameter.shape
    squares, sums = np.float32(0), np.zeros(t.ROWS, np.float32)
    of_gradient, of_velocity, of_parameter = (
        address(gradient),
        address(velocity),
        address(parameter),
    )
    to_ahead, to_sums = address(ahead), address(sums)
    whole = columns // WIDE
    for r in range(rows):
        row = 4 * r * columns
        for block in range(whole):
            place = row + block * 4 * WIDE
            target = to_ahead + (r // t.ROWS * ahead.shape[1] + block) * TILE + r % t.ROWS * t.ROW
            of_numbers.push(of_gradient + place, of_velocity + place, momentum, target)
            of_numbers.add_squares(of_parameter + place, to_sums)
        for c in range(whole * WIDE, columns):
            velocity[r, c] = gradient[r, c] + momentum * velocity[r, c]
            seen = gradient[r, c] + momentum * velocity[r, c]
            ahead[r // t.ROWS, whole, r % t.ROWS, c % WIDE] = stored(seen, ahead[0, 0, 0, 0])
            squares += parameter[r, c] * parameter[r, c]
    for sum in sums:
        squares += sum
    return squares


@compiled
def settle(parameter, product, row, column, scale, factor):
    """32x32 of `parameter` times `scale` plus `product` times `factor`."""
    columns = parameter.shape[1]
    target, source = address(parameter) + 4 * (row * columns + column), address(product)
    for r in range(WIDE):
        if column + WIDE <= columns:
            of_numbers.settle(target + 4 * r * columns, scale, source + 4 * r * WIDE, factor)
        else:
            for c in range(columns - column):
                moved = scale * parameter[row + r, column + c] + factor * product[r * WIDE + c]
                parameter[row + r, column + c] = moved


@compiled
def both_sides(source, left, right, rows):
    """A symmetric matrix in fp32 at `source` in bf16 for both sides of a product."""
    blocks = rows // WIDE
    for r in range(rows):
        for block in range(blocks):
            target = left + (r // t.ROWS * blocks + block) * TILE + r % t.ROWS * t.ROW
            v.rounded(source + (r * rows + block * WIDE) * 4, target)
    across(left, right, 2 * blocks, blocks)


@compiled
def across(left, right, tiles, steps):
    """The tiles for the right side of the transpose of the matrix at `left`."""
    for tile in range(tiles):
        for step in range(steps):
            source = left + (tile * steps + step) * TILE
            target = right + (tile // 2 * steps + step) * FACTOR + tile % 2 * t.ROW
            v.turned(source, t.ROW, target, 2 * t.ROW)


@compiled
def products(left, right, rows, columns, steps, result, stride):
    """The product of two matrices, of so many blocks of 32 rows and columns, in fp32."""
    for r in range(rows):
        for c in range(columns):
            place = result + r * WIDE * stride + c * 4 * WIDE
            begin(place, stride, True)
            follow(left + 2 * r * steps * TILE, steps, right + c * steps * FACTOR, steps, False)
            end(place, stride)
