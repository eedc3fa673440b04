"""A model card (Mitchell et al., 2019) of a finished run: data, use and limits in sentences."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onecycle import files
from onecycle.run import record

MANY = 20  # classes up to which all are named


@dataclass(frozen=True)
class Chapter:
    """A heading and the sentences below it, as plain text."""

    heading: str
    sentences: tuple[str, ...]


def chapters(folder: Path, evaluation: dict[str, Any]) -> list[Chapter]:
    """What the card of the run in `folder` says; `evaluation` is as in `evaluation.json`."""
    summary = files.read_json(folder / record.SUMMARY)
    environment = files.read_json(folder / record.ENVIRONMENT)
    size, classes = environment["data"]["image_size"], evaluation["classes"]
    return [
        Chapter(
            "Model",
            (
                f"An image classifier, trained {_beginning(environment)} by onecycle: recipe "
                f"{summary['recipe']} ({summary['recipe_digest']}), seed {summary['seed']}, "
                f"{summary['epochs']:g} epochs, {summary['parameters']:,} parameters.",
                f"It takes colour images of {size} by {size} pixels and gives a probability for "
                f"each of {len(classes):,} classes{_named(classes)}.",
                f"{evaluation['accuracy']:.2%} of {evaluation['images']:,} test images are right "
                f"(95 % interval {_interval(evaluation, 'accuracy')}), with the weights of the "
                f"last epoch and {evaluation['tta_note']}.",
            ),
        ),
        Chapter("Data", _data(summary, environment)),
        Chapter("Use", _use(size)),
        Chapter("Limits", _limits(evaluation, environment)),
    ]


def markdown(name: str, found: list[Chapter]) -> str:
    """The card of the run called `name` as Markdown, in which no name means anything."""
    parts = [f"# Model card: {_literal(name)}"]
    for chapter in found:
        lines = [f"- {_literal(sentence)}" for sentence in chapter.sentences]
        parts += [f"## {chapter.heading}", "\n".join(lines)]
    return "\n\n".join(parts) + "\n"


def _beginning(environment: dict[str, Any]) -> str:
    """What the training began with."""
    init = environment.get("init")
    return f"from the weights of {init['run']}" if init else "from scratch"


def _named(classes: list[dict[str, Any]]) -> str:
    if len(classes) > MANY:
        return ""
    return ": " + ", ".join(row["class"] for row in classes)


def _interval(row: dict[str, Any], key: str) -> str:
    return f"{row[f'{key}_low']:.2%} to {row[f'{key}_high']:.2%}"


def _data(summary: dict[str, Any], environment: dict[str, Any]) -> tuple[str, ...]:
    data = environment["data"]
    held = f", {data['val']:,} validation" if data["val"] else ""
    sentences = [
        f"{data['name']}: {data['train']:,} training{held} and {data['test']:,} test images, "
        f"SHA-256 of pixels and labels {summary['data_digest']}."
    ]
    if data.get("skipped"):
        sentences.append(f"{len(data['skipped']):,} images that can't be used were left out.")
    sentences += [f"{note[0].upper()}{note[1:]}." for note in data.get("notes", ())]
    if data["val"]:
        sentences.append(
            "Epochs were judged on the validation images; the test images were read at the end."
        )
    else:
        sentences.append(
            "No validation images were held out: each epoch was judged on the test images, and "
            "whoever tunes by that makes the test accuracy look better than it is."
        )
    return tuple(sentences)


def _use(size: int) -> tuple[str, ...]:
    return (
        "Meant for pictures of the kind that it was trained on, one of the classes in each, "
        f"brought to {size} by {size} pixels.",
        "Not meant for decisions about people, nor where a mistake does harm, without a person "
        "who looks again.",
    )


def _limits(evaluation: dict[str, Any], environment: dict[str, Any]) -> tuple[str, ...]:
    known = [row for row in evaluation["classes"] if row["recall"] is not None]
    worst = min(known, key=lambda row: row["recall"])
    found = evaluation["calibration"]
    sentences = [
        "Any picture gets one of its classes, also one that shows none of them.",
        f"It is weakest on {worst['class']}: {worst['recall']:.2%} of {worst['support']:,} are "
        f"right (95 % interval {_interval(worst, 'recall')}).",
    ]
    for row in evaluation["most_confused"][:1]:
        sentences.append(
            f"Its most frequent mistake is {row['actual']} taken for {row['predicted']}: "
            f"{row['images']:,}, which is {row['share']:.2%} of that class."
        )
    untested = [row["class"] for row in evaluation["classes"] if row["recall"] is None]
    if untested:
        sentences.append(f"Without a test image, and so unknown: {', '.join(untested[:MANY])}.")
    if forced := environment.get("forced"):
        sentences.append(f"Its training was gone on with although {'; '.join(forced)}.")
    sentences += [
        f"Its confidence is off by {found['ece']:.2%} on average (expected calibration error).",
        "The interval is over test images like these. Other seeds, cameras, places or times are "
        "not in it, and nothing here was measured on them.",
    ]
    return tuple(sentences)


def _literal(text: str) -> str:
    """`text` as one line of Markdown that is shown letter by letter."""
    line = " ".join(text.split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_{}\[\]#+!|~$])", r"\\\1", line)
