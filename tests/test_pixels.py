"""The sigmoid of AMX's layers, by vectors of AVX512."""

import numpy as np
from tile_cases import with_amx


def sigmoids(x):
    """Of `x`, whose length is a multiple of 16, in fp32."""
    from numba import njit, types
    from numba.extending import intrinsic

    from onecycle.jit import address
    from onecycle.model.compiled import pixels, tiles, vectors

    @intrinsic
    def sixteen(context, source, target):
        def made(context, builder, signature, arguments):
            numbers = vectors.floats(builder, arguments[0], 0)
            place = tiles.at(builder, arguments[1], tiles.LONG(0), vectors.FLOATS)
            builder.store(pixels.sigmoid(builder, numbers), place, align=4)
            return context.get_dummy_value()

        return types.void(types.intp, types.intp), made

    @njit
    def run(x, y):
        for start in range(0, 4 * len(x), 64):
            sixteen(address(x) + start, address(y) + start)

    y = np.empty_like(x)
    run(x, y)
    return y


@with_amx
def test_it_is_as_exact_as_it_says_wherever_fp32_has_such_a_number():
    x = np.concatenate([np.linspace(-87, 87, 2**18), np.linspace(-1, 1, 2**16)], dtype=np.float32)
    exact = 1 / (1 + np.exp(-x.astype(np.float64)))
    assert np.abs(sigmoids(x) / exact - 1).max() < 0.00014


@with_amx
def test_far_out_it_is_zero_or_one_and_of_no_number_none():
    ends = np.array([-np.inf, -1e38, -200, 200, 1e38, np.inf, np.nan], dtype=np.float32)
    found = sigmoids(np.resize(ends, 16))[: len(ends)]
    np.testing.assert_array_equal(found, [0, 0, 0, 1, 1, 1, np.nan])
