"""What Muon does to single numbers, by vectors of AVX512, for `newton_schulz`.

Addresses are in bytes.
"""

from numba import types
from numba.extending import intrinsic

from onecycle.model.compiled.tiles import LONG, at
from onecycle.model.compiled.vectors import FLOATS, everywhere, floats, fma, keep


@intrinsic
def push(context, gradient, velocity, momentum, target):
    """Nesterov's step of `velocity`, 32 numbers in fp32; what lies ahead, in bf16, at `target`."""

    def made(context, builder, signature, arguments):
        gradient, velocity, momentum, target = arguments
        factor, ahead = everywhere(builder, momentum), []
        for half in (0, 64):
            pushed = floats(builder, gradient, half)
            speed = fma(builder, factor, floats(builder, velocity, half), pushed)
            builder.store(speed, at(builder, velocity, LONG(half), FLOATS), align=4)
            ahead.append(fma(builder, factor, speed, pushed))
        keep(builder, *ahead, target)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.float32, types.intp), made


@intrinsic
def add_squares(context, source, sums):
    """Add the squares of 32 numbers in fp32 to 16 sums."""

    def made(context, builder, signature, arguments):
        source, sums = arguments
        total = floats(builder, sums, 0)
        for half in (0, 64):
            number = floats(builder, source, half)
            total = fma(builder, number, number, total)
        builder.store(total, at(builder, sums, LONG(0), FLOATS), align=4)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp), made


@intrinsic
def settle(context, target, scale, product, factor):
    """32 numbers in fp32 at `target` times `scale`, plus those at `product` times `factor`."""

    def made(context, builder, signature, arguments):
        target, scale, product, factor = arguments
        scale, factor = everywhere(builder, scale), everywhere(builder, factor)
        for half in (0, 64):
            more = builder.fmul(factor, floats(builder, product, half))
            moved = fma(builder, scale, floats(builder, target, half), more)
            builder.store(moved, at(builder, target, LONG(half), FLOATS), align=4)
        return context.get_dummy_value()

    return types.void(types.intp, types.float32, types.intp, types.float32), made
