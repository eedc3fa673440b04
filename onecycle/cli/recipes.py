"""`onecycle recipes`."""

import json

from onecycle.cli.app import Json, app


@app.command
def recipes(name: str | None = None, /, *, json_: Json = False) -> None:
    """List the recipes, or show one of them whole.

    Parameters
    ----------
    name:
        The recipe to show as TOML; also a file, or a run's recipe.json.
    json_:
        Print it, or all of them, as one JSON object.
    """
    from onecycle.recipe import book

    if json_:
        shown = [book.find(each) for each in ([name] if name is not None else book.names())]
        told = [{"digest": recipe.digest(), **recipe.to_dict()} for recipe in shown]
        print(json.dumps(told[0] if name is not None else {"recipes": told}))
        return
    if name is not None:
        print(f"# digest {book.find(name).digest()}")
        print(book.text(name), end="")
        return
    listed = [book.find(each) for each in book.names()]
    width = max(len(recipe.name) for recipe in listed)
    for recipe in listed:
        print(f"{recipe.name:<{width}}  {recipe.about}")
