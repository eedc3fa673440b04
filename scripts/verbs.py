"""Write docs/verbs/: a page for each verb, from the command line's own help.

usage: python scripts/verbs.py
"""

import re
from pathlib import Path

from onecycle import cli, files

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "verbs"
MADE = "Made by `python scripts/verbs.py`. [All verbs](README.md)\n"
INDEX = """# The verbs

`onecycle VERB --help` says the same. In Python they are functions of the same names and options
(`find-lr` is `onecycle.find_lr`). Made by `python scripts/verbs.py`; a test holds that all are up
to date.

| verb | |
|---|---|
"""


def main() -> None:
    """Write all pages, and remove those of verbs that are no more."""
    made = pages()
    files.make_folder(FOLDER)
    for path in set(FOLDER.glob("*.md")) - {FOLDER / name for name in made}:
        path.unlink()
    for name, text in made.items():
        files.write_bytes(FOLDER / name, text.encode())


def pages() -> dict[str, str]:
    """File name -> page, of the index and of every verb that is registered."""
    text = cli.app.app.generate_docs()
    text = text.replace(" *[default: False]*", "")  # a flag's
    # Under `python -m pytest`, cyclopts leaves the end of that in the usage.
    text = re.sub(r"^(onecycle \S+) -m \S+", r"\1", text, flags=re.MULTILINE)
    _, *parts = re.split(r"^## onecycle (\S+)$", text, flags=re.MULTILINE)
    pairs = sorted(zip(parts[::2], parts[1::2], strict=True))
    made = {f"{verb}.md": f"# onecycle {verb}\n\n{rest.strip()}\n\n{MADE}" for verb, rest in pairs}
    rows = [f"| [{verb}]({verb}.md) | {_about(rest)} |\n" for verb, rest in pairs]
    return {"README.md": INDEX + "".join(rows), **made}


def _about(page: str) -> str:
    """The sentence under the usage."""
    return page.split("```\n")[1].strip().split("\n\n")[0].replace("\n", " ")


if __name__ == "__main__":
    main()
