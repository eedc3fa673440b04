"""`onecycle data`."""

import json
import re
from pathlib import Path
from typing import Any

import onecycle
from onecycle.cli.app import Json, Quiet, app

MOST_CLASSES = 20  # that are listed one by one
MOST_LISTED = 5  # duplicates that are listed of each kind
MOST_SKIPPED = 20  # unusable files that are listed
NAMED = 4  # images that are named of a group of duplicates
NAME = 40  # characters of a class's name

Group = list[dict[str, str]]  # images that are the same, or nearly


@app.command
def data(
    spec: str,
    /,
    *,
    recipe: str | None = None,
    seed: int = 0,
    image_size: int | None = None,
    out: str | None = None,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Tell what is in a data set: classes, colours, unusable files, duplicates; and draw pictures.

    Parameters
    ----------
    spec:
        What 'onecycle train' takes as --data: a name, or the path of a folder or archive.
    recipe:
        Whose augmentation is shown; by default the one made for the data.
    seed:
        Of the images that are shown, and of the augmentation.
    image_size:
        Bring pictures to this many pixels, 16 to 128.
    out:
        The folder for the pictures; by default data-NAME. Older pictures in it are replaced.
    quiet:
        Show the result only.
    json_:
        Print everything, every duplicate too, as one JSON object.
    """
    from onecycle import files

    if out is not None:
        files.make_folder(Path(out))  # so that a wrong one is told before the work
    found = onecycle.data(spec, recipe=recipe, seed=seed, image_size=image_size, quiet=quiet)
    told = found.to_dict()
    folder = out or "data-" + (re.sub(r"[^\w.-]+", "-", told["name"]).strip("-.")[:60] or "set")
    paths = found.save_pictures(folder)
    told["pictures"] = [str(path) for path in paths]
    print(json.dumps(told) if json_ else "\n".join(_lines(told)))


def _lines(told: dict[str, Any]) -> list[str]:
    shapes = told["shape"]
    counts = ", ".join(f"{shape[0]:,} {part}" for part, shape in shapes.items())
    size = f"{told['image_size']}x{told['image_size']}"
    return [
        f"data            {told['name']}  ({told['source']})",
        f"digest          {told['digest']}",
        f"images          {counts}, {size} RGB",
        *(f"note            {note}" for note in told["notes"]),
        f"mean            {_both_scales(told, 'mean')}",
        f"std             {_both_scales(told, 'std')}",
        *_class_lines(told),
        *_skipped_lines(told["skipped"]),
        *_duplicate_lines(told),
        f"pictures        {'  '.join(told['pictures'])}",
    ]


def _both_scales(told: dict[str, Any], key: str) -> str:
    small = " ".join(f"{value:.4f}" for value in told[key])
    large = " ".join(f"{value:.2f}" for value in told[f"{key}_255"])
    return f"{small} on the 0-1 scale, {large} on 0-255 (training part)"


def _class_lines(told: dict[str, Any]) -> list[str]:
    classes = told["classes"]
    balance = f"largest over smallest {told['imbalance']:.2f} (training part)"
    lines = [f"classes         {len(classes):,}, {balance}"]
    if len(classes) <= MOST_CLASSES:
        width = max(len(_short(name)) for name in classes)
        lines += [
            f"  {_short(name):<{width}}  {_each_part(count)}" for name, count in classes.items()
        ]
        return lines
    for word, pick in (("smallest", min), ("largest", max)):
        name = pick(classes, key=lambda name: classes[name]["train"])
        lines.append(f"  {word:<8}  {_each_part(classes[name])}  {_short(name)}")
    return [*lines, "  (--json lists all)"]


def _each_part(count: dict[str, int]) -> str:
    return "  ".join(f"{images:>7,} {part}" for part, images in count.items())


def _short(name: str) -> str:
    return name if len(name) <= NAME else f"{name[: NAME // 2]}…{name[1 - NAME // 2 :]}"


def _skipped_lines(skipped: list[str]) -> list[str]:
    if not skipped:
        return []
    return [f"NOT USABLE      {len(skipped):,} files, left out:", *_few(skipped, MOST_SKIPPED)]


def _duplicate_lines(told: dict[str, Any]) -> list[str]:
    found = told["duplicates"]
    exact, near = found["exact"], found["near"]
    pairs = [pair["images"] for pair in found["near_pairs"]]
    doubted = [group for group in [*found["exact_groups"], *pairs] if _differ(group, "class")]
    lines = [
        f"same pixels     {_sum(exact, 'group')}",
        *_few([_group(group, " = ") for group in _across_first(found["exact_groups"])]),
        f"nearly the same {_sum(near, 'pair')}",
        *_few([_group(group, " ~ ") for group in _across_first(pairs)]),
    ]
    if doubted:
        lines.append("labels differ   a label may be wrong, or they are no duplicates:")
        lines += _few([_group(group, ", ") for group in doubted])
    if families := found["families"]["count"]:
        largest = f"the largest of {found['families']['largest']:,} images"
        lines.append(f"families        {families:,} of the same or nearly the same, {largest}")
    return [*lines, *_leak_lines(found["test_images_in_train"], told["shape"]["test"][0])]


def _leak_lines(inside: dict[str, Any], tests: int) -> list[str]:
    both = inside["exact"] + inside["near"]
    lines = [
        f"test in train   {both:,} of {tests:,} test images ({inside['fraction']:.2%}) have a "
        f"duplicate in the training part: {inside['exact']:,} the same, {inside['near']:,} nearly"
    ]
    if both:
        lines.append("  what a model remembers of them counts as test accuracy")
    return lines


def _sum(tally: dict[str, int], kind: str) -> str:
    count = tally[f"{kind}s"]
    if not count:
        return "none"
    return (
        f"{count:,} {kind}{'s' if count > 1 else ''} of {tally['images']:,} images, "
        f"{tally['across_parts']:,} across train and test, "
        f"labels differ in {tally['labels_differ']:,}"
    )


def _across_first(groups: list[Group]) -> list[Group]:
    return sorted(groups, key=lambda group: not _differ(group, "part"))


def _differ(group: Group, key: str) -> bool:
    return len({image[key] for image in group}) > 1


def _group(group: Group, sign: str) -> str:
    """The names of some of the images, those of other parts and classes first."""
    kinds: set[tuple[str, str]] = set()
    firsts: Group = []
    others: Group = []
    for image in group:
        kind = (image["part"], image["class"])
        (others if kind in kinds else firsts).append(image)
        kinds.add(kind)
    more = f" and {len(group) - NAMED:,} more" if len(group) > NAMED else ""
    return sign.join(_name(image) for image in [*firsts, *others][:NAMED]) + more


def _name(image: dict[str, str]) -> str:
    """The image's name, with its part and its class unless these stand in it."""
    part = "" if image["name"].startswith(image["part"]) else f"{image['part']} "
    label = "" if f"/{image['class']}/" in image["name"] else f" ({image['class']})"
    return f"{part}{image['name']}{label}"


def _few(lines: list[str], most: int = MOST_LISTED) -> list[str]:
    more = [f"  and {len(lines) - most:,} more (--json lists all)"] if len(lines) > most else []
    return [f"  {line}" for line in lines[:most]] + more
