"""`onecycle recipes`."""

from onecycle.cli.app import app


@app.command
def recipes(name: str | None = None, /) -> None:
    """List the recipes, or show one of them whole.

    Parameters
    ----------
    name:
        The recipe to show as TOML; also a file, or a run's recipe.json.
    """
    from onecycle.recipe import book

    if name is not None:
        print(f"# digest {book.find(name).digest()}")
        print(book.text(name), end="")
        return
    listed = [book.find(each) for each in book.names()]
    width = max(len(recipe.name) for recipe in listed)
    for recipe in listed:
        print(f"{recipe.name:<{width}}  {recipe.about}")
