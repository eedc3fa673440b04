"""The kinds of schedule that a recipe can have: each a few plain numbers, times in epochs."""

from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Shape = Literal["linear", "cosine", "exponential"]
Per = Literal["batch", "epoch"]
Rate = Annotated[float, Field(gt=0)]
Epochs = Annotated[float, Field(gt=0)]
MomentumAtPeak = Annotated[
    float | None,
    Field(gt=0, lt=1, description="momentum falls to this at the peak, and rises again"),
]


class _Schedule(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class OneCycleSpec(_Schedule):
    """The rate from start to peak to final; with three phases by way of start again."""

    kind: Literal["one_cycle"] = "one_cycle"
    lr_start: Rate
    lr_peak: Rate
    lr_final: Rate
    peak_epoch: Epochs = Field(description="epochs until the peak")
    three_phase: bool = Field(
        False, description="down to lr_start as fast as it came up, then on to lr_final"
    )
    shape: Shape
    per: Per = "batch"
    momentum_at_peak: MomentumAtPeak = None


class TriangularSpec(_Schedule):
    """Cycles from start to peak and back (Smith, 2015); triangular2 halves their height each time.

    A peak lies half of `cycle_epochs` after its cycle's first step, where torch's CyclicLR has it.
    """

    kind: Literal["triangular", "triangular2"]
    lr_start: Rate
    lr_peak: Rate
    cycle_epochs: Epochs = Field(description="epochs from one low to the next")
    per: Per = "batch"
    momentum_at_peak: MomentumAtPeak = None


class PiecewiseSpec(_Schedule):
    """The rate from knot to knot, each (epoch, rate); before the first and after the last it stays.

    A rate is reached at the last step before its epochs are over, as in one cycle.
    """

    kind: Literal["piecewise"]
    knots: tuple[tuple[Annotated[float, Field(ge=0)], Rate], ...] = Field(min_length=1)
    shape: Shape = "linear"
    per: Per = "batch"


class CosineSpec(_Schedule):
    """From peak down to final along half a cosine wave (Loshchilov and Hutter, 2016)."""

    kind: Literal["cosine"]
    lr_peak: Rate
    lr_final: Rate
    per: Per = "batch"


class ConstantSpec(_Schedule):
    """One rate throughout."""

    kind: Literal["constant"]
    lr_peak: Rate


AnySchedule = OneCycleSpec | TriangularSpec | PiecewiseSpec | CosineSpec | ConstantSpec
KINDS: dict[str, type[_Schedule]] = {
    name: spec
    for spec in get_args(AnySchedule)
    for name in get_args(spec.model_fields["kind"].annotation)
}


def _with_kind(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {"kind": "one_cycle", **{key: v for key, v in value.items() if v is not None}}


ScheduleSpec = Annotated[AnySchedule, Field(discriminator="kind"), BeforeValidator(_with_kind)]


def problem(spec: AnySchedule, epochs: float) -> str | None:
    """Why `spec` can't be that of a run of `epochs`, or None."""
    for key, rate in spec:
        if key in ("lr_start", "lr_final") and rate > peak(dict(spec)):
            return f"schedule.{key} {rate:g} is above the peak of {peak(dict(spec)):g}"
    named: list[tuple[str, float]] = []
    if isinstance(spec, OneCycleSpec):
        named = [("peak_epoch", spec.peak_epoch)]
        if spec.three_phase:
            named += [("peak_epoch: the second phase's end", 2 * spec.peak_epoch)]
    elif isinstance(spec, TriangularSpec):
        named = [("cycle_epochs", spec.cycle_epochs)]
    elif isinstance(spec, PiecewiseSpec):
        times = [epoch for epoch, _ in spec.knots]
        if sorted(set(times)) != times:
            given = ", ".join(f"{epoch:g}" for epoch in times)
            return f"schedule.knots: the epochs must rise, not be {given}"
        named = [("knots: the epoch", times[-1])]
    for key, epoch in named:
        if epoch > epochs * (1 + 1e-9):  # stretching rounds
            return f"schedule.{key} {epoch:g} lies past the last of {epochs:g} epochs"
    return None


def stretched(schedule: dict[str, Any], factor: float) -> dict[str, Any]:
    """The plain values of a schedule with its epochs times `factor`."""
    times = {k: v * factor for k, v in schedule.items() if k in ("peak_epoch", "cycle_epochs")}
    if "knots" in schedule:
        times["knots"] = [[epoch * factor, lr] for epoch, lr in schedule["knots"]]
    return {**schedule, **times}


def peak(schedule: dict[str, Any]) -> float:
    """The rate that `--lr` names, of a schedule's plain values: its peak."""
    return float(schedule.get("lr_peak") or max(lr for _, lr in schedule["knots"]))


def with_peak(schedule: dict[str, Any], lr: float) -> dict[str, Any]:
    """The plain values of a schedule with `lr` as its peak, and its other rates in proportion."""
    old = peak(schedule)
    rates = {k: v / old * lr for k, v in schedule.items() if k.startswith("lr_")}
    if "knots" in schedule:
        rates["knots"] = [[epoch, rate / old * lr] for epoch, rate in schedule["knots"]]
    return {**schedule, **rates}


def as_kind(schedule: dict[str, Any], kind: Any) -> dict[str, Any]:
    """The plain values of a schedule of another `kind`: what both have is kept, the rest None."""
    fields = KINDS[kind].model_fields if str(kind) in KINDS else schedule
    return {**{key: schedule.get(key) for key in fields}, "kind": kind}
