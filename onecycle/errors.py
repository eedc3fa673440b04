"""What can go wrong for a user, each kind with the exit code that the command line ends with."""

import difflib
import importlib
from collections.abc import Iterable
from types import ModuleType


class OnecycleError(Exception):
    """A failure that a user can act on: its text is one line and says what to do."""

    exit_code = 1

    def __str__(self) -> str:
        # It may quote a file, and so anything at all.
        return escaped(super().__str__())


class RecipeError(OnecycleError):
    """Wrong usage, or a recipe that can't be."""

    exit_code = 2


class DataError(OnecycleError):
    """Images or labels that are missing or can't be used."""

    exit_code = 3


class DivergedError(OnecycleError):
    """The loss is no longer a finite number."""

    exit_code = 4


class MissingExtraError(OnecycleError):
    """An optional library is not installed."""

    exit_code = 5


class DiskError(OnecycleError):
    """A file or folder can't be read or written."""

    exit_code = 6


class InterruptedRun(OnecycleError):
    """A signal ended the run after it was saved; the exit code is 128 + the signal's number."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`" (did you mean 'x'?)"` for the known word nearest to `word`, or an empty string."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" (did you mean '{near[0]}'?)" if near else ""


def need(module: str, extra: str, purpose: str) -> ModuleType:
    """The optional library `module`; MissingExtraError with the line that installs it if not there.

    `extra` is the package's extra that holds it, `purpose` what was asked for.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"{purpose} needs {module}: pip install 'onecycle[{extra}]'"
        ) from error


def escaped(text: str) -> str:
    """`text` on one line, whatever is in it: what can't be printed as Python would write it."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def brief(text: str, most: int = 100) -> str:
    """`text`, its middle left out where it has more than `most` characters."""
    return text if len(text) <= most + 3 else f"{text[: most // 2]}...{text[-most // 2 :]}"


def one_line(error: Exception) -> str:
    """What `error` says, without line breaks."""
    return " ".join(str(error).split()) or type(error).__name__


def few(items: Iterable[str], limit: int = 5) -> str:
    """The first `limit` of `items` separated by commas, and how many more there are."""
    listed = list(items)
    more = f" and {len(listed) - limit} more" if len(listed) > limit else ""
    return ", ".join(listed[:limit]) + more
