"""The learning rate and the momentum of a run, drawn before it is made."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from onecycle.reporting.plots import JUDGED, RATE, TRAIN, blank

STYLES = ("-", "--", ":")


def schedule(
    rates: Sequence[float],
    momenta: Mapping[str, Sequence[float]],
    steps_per_epoch: int,
    title: str,
) -> Figure:
    """The rate at each step, and under it each optimizer's momentum, by its name.

    Steps are counted along the lower edge and epochs along the upper one.
    """
    figure = blank(8, 5)
    rate, momentum = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    marker = "o" if len(rates) == 1 else ""
    rate.plot(rates, color=RATE, linewidth=1.8, marker=marker)
    rate.set_ylabel("learning rate")
    rate.yaxis.set_major_formatter("{x:.3g}")
    rate.set(xlim=(0, len(rates)), ylim=(0, None))
    for (name, values), style, colour in zip(
        momenta.items(), STYLES, (TRAIN, JUDGED, RATE), strict=False
    ):
        momentum.plot(
            values, color=colour, linewidth=1.8, linestyle=style, marker=marker, label=name
        )
    momentum.set_ylabel("momentum")
    momentum.set_ylim(0, 1)
    momentum.set_xlabel("step")
    momentum.legend(frameon=False, loc="lower right")
    for axes in (rate, momentum):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    epochs = rate.secondary_xaxis(
        "top",
        functions=(lambda step: step / steps_per_epoch, lambda epoch: epoch * steps_per_epoch),
    )
    epochs.set_xlabel("epochs completed")
    rate.set_title(title, fontsize=10, loc="left")
    return figure
