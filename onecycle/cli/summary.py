"""`onecycle summary`."""

import json

import onecycle
from onecycle.cli.app import Json, Set, app


@app.command
def summary(
    recipe: str,
    /,
    *,
    classes: int = 10,
    image_size: int = 32,
    epochs: float | None = None,
    set_: Set = None,
    plot: str | None = None,
    json_: Json = False,
) -> None:
    """Show a recipe's network, schedule and expected time here, without data.

    Parameters
    ----------
    recipe:
        A name that 'onecycle recipes' lists, a TOML file, or a run's recipe.json.
    classes:
        How many classes the data would have.
    image_size:
        Height and width of its images in pixels.
    epochs:
        How long, fractions allowed; the peak of the rate stays at the same fraction.
    set_:
        Change a number of the recipe: --set model.width=32 --set augment.cutout=12.
    plot:
        A folder to draw the network and the schedule into, as architecture.png and schedule.png.
    json_:
        Print the summary as one JSON object.
    """
    made = onecycle.summary(
        recipe, classes, image_size, epochs=epochs, settings=set_ or (), plot=plot
    )
    print(json.dumps(made.to_dict()) if json_ else made)
