"""What a picture's path says: its part, its class and its name; and the test part that is drawn.

If pictures lie in `train/<class>/`, the last three parts of a path are the part (`train`, `test`
or `val`, or another of PARTS, small or capital), the class and the file name: `train/cat/1.jpg`, or
`photos/train/cat/1.jpg`. Other pictures are left out, and counted; those deeper inside are refused.
Without such folders the last two parts are class and file name, `cat/1.jpg`, all pictures have to
lie equally deep, and a class's in one folder. Hidden files, and files that are no images by their
suffix, are left out.

Where there is no test part, `val` is it. Where there is neither, a fifth of each class is drawn:
the pictures of which the SHA-256 of seed and name is lowest, so that one that is added later
changes the part of at most one other.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from onecycle.errors import DataError, few
from onecycle.files import sha256_bytes

PARTS = {  # what folders are called, and tables may say
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("test", "testing"), "test"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
}
TEST_FRACTION = 0.2  # of each class, rounded; drawn where pictures come without a test part
SPLIT_SEED = 0
IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff"),
    # Nothing reads these, but to pass over them in silence could lose a class.
    *(".heic", ".heif", ".avif", ".jp2", ".jxl"),
)
LAYOUT = "train/<class>/<image> and test/<class>/<image>, or <class>/<image>"

# Control characters, line separators and undecodable bytes: they would break a one-line message.
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@dataclass(frozen=True)
class Place:
    """Where a picture belongs: `part` is train, val or test; `name` is unique in a data set."""

    part: str
    class_name: str
    name: str


@dataclass(frozen=True)
class Layout:
    """The place of each picture by its path, whether the test part was drawn, and what to tell."""

    places: Mapping[str, Place]
    drawn: bool = False
    notes: tuple[str, ...] = ()

    @property
    def classes(self) -> list[str]:
        """The names of the training part's classes, sorted."""
        return sorted({p.class_name for p in self.places.values() if p.part == "train"})


def by_path(source: Path, entries: Iterable[str]) -> Layout:
    """The layout of the pictures among `entries`, which are paths inside of `source`.

    Raises DataError for hostile paths, and for pictures that can't be trained and tested on.
    """
    shown = {entry: parts for entry in entries if (parts := _parts(source, entry))}
    split = {e: (part, p) for e, p in shown.items() if len(p) > 2 and (part := part_of(p[-3]))}
    _check_inside(source, {e: p for e, p in shown.items() if e not in split})
    if split:
        places = {e: Place(part, p[-2], "/".join(p[-3:])) for e, (part, p) in split.items()}
    else:
        _check_depth(source, shown)
        _check_folders(source, shown)
        places = {e: Place("train", p[-2], "/".join(p[-2:])) for e, p in shown.items()}
    _check_names(source, places)
    found = complete(source, places)
    if left := [entry for entry in shown if entry not in places]:
        note = f"pictures left out, because they lie in no class of a part: {few(left, 1)}"
        found = replace(found, notes=(*found.notes, note))
    return found


def part_of(name: str) -> str | None:
    """The part (train, val or test) that `name` stands for; None if it is none of PARTS."""
    return PARTS.get(name.lower())


def complete(source: Path, places: Mapping[str, Place]) -> Layout:
    """`places` with a test part. Raises DataError if they can't be trained and tested on."""
    parts = {place.part for place in places.values()}
    if "train" not in parts:
        raise DataError(f"{source}: no train/<class>/ images found: expected {LAYOUT}")
    found = Layout(places)
    if "test" not in parts and "val" in parts:
        tested = {e: replace(p, part="test") if p.part == "val" else p for e, p in places.items()}
        found = Layout(tested, notes=("no test part: the val part is the test part",))
    elif "test" not in parts:
        note = (
            f"no test part: {TEST_FRACTION:.0%} of each class were drawn as it (seed {SPLIT_SEED}; "
            "split.csv in the run's folder lists it)"
        )
        found = Layout(_drawn(places), True, (note,))
    classes = found.classes
    extra = sorted({p.class_name for p in found.places.values()}.difference(classes))
    if extra:
        raise DataError(
            f"{source}: classes in test/ or val/ without images in train/: {few(extra)}: "
            "add training images or remove them"
        )
    return found


def is_image(path: str) -> bool:
    """Whether `path` is named like an image."""
    return path.lower().endswith(IMAGE_SUFFIXES)


def is_hidden(part: str) -> bool:
    """Whether a file or folder called `part` is hidden, or a system's own."""
    return part.startswith(".") or part == "__MACOSX"


def _drawn(places: Mapping[str, Place]) -> dict[str, Place]:
    """`places`, all of the training part, with a test part drawn from each class."""
    members: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
    for entry, place in places.items():
        rank = sha256_bytes(f"{SPLIT_SEED} {place.name}".encode())
        members[place.class_name].append((rank, entry))
    drawn = dict(places)
    for ranked in members.values():
        for _, entry in sorted(ranked)[: round(TEST_FRACTION * len(ranked))]:
            drawn[entry] = replace(drawn[entry], part="test")
    return drawn


def _parts(source: Path, entry: str) -> list[str]:
    """The parts of an image's path; none if it is no image or hidden. DataError if hostile."""
    if not is_image(entry):
        return []
    parts = [part for part in entry.split("/") if part not in ("", ".")]
    if entry.startswith("/") or ".." in parts:
        raise DataError(f"{source}: member {entry!a} leads outside of the archive: pack it anew")
    return [] if any(map(is_hidden, parts)) else parts


def _check_depth(source: Path, shown: Mapping[str, list[str]]) -> None:
    """DataError unless all paths have the same number of parts, which is more than one."""
    depths = Counter(map(len, shown.values()))
    usual = max(depths, key=lambda depth: (depths[depth], depth), default=0)
    if usual < 2:
        raise DataError(f"{source}: no images found in a class's folder: expected {LAYOUT}")
    for entry, parts in shown.items():
        if len(parts) != usual:
            than = "deeper" if len(parts) > usual else "less deep"
            raise DataError(
                f"{source}: {entry!a} lies {than} than the other images, so that its class can't "
                "be told: move or remove it"
            )


def _check_inside(source: Path, others: Mapping[str, list[str]]) -> None:
    """DataError if one of `others`, which are in no class of a part, lies deep inside of a part."""
    for entry, parts in others.items():
        if any(map(part_of, parts[:-3])):
            raise DataError(
                f"{source}: {entry!a} lies deeper than the pictures of a class, so that its class "
                "can't be told: move or remove it"
            )


def _check_folders(source: Path, shown: Mapping[str, list[str]]) -> None:
    """DataError if two folders of one name hold pictures: of a class, or of what is inside it."""
    first: dict[str, str] = {}
    for parts in shown.values():
        folder = "/".join(parts[:-1])
        if (other := first.setdefault(parts[-2], folder)) != folder:
            raise DataError(
                f"{source}: {other!a} and {folder!a} can't both be the class {parts[-2]!a}: put "
                "each class into one folder, or list the pictures in a CSV"
            )


def _check_names(source: Path, places: Mapping[str, Place]) -> None:
    """DataError for a path that can't be printed, and for two pictures of one name."""
    first: dict[str, str] = {}
    for entry, place in places.items():
        if UNPRINTABLE.search(entry):
            raise DataError(
                f"{source}: {entry!a} has unprintable characters in its name: rename it"
            )
        if (other := first.setdefault(place.name, entry)) != entry:
            raise DataError(
                f"{source}: {other!a} and {entry!a} both count as {place.name}: rename one"
            )
