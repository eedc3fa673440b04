"""What can go wrong for a user, each kind with the exit code that the command line ends with."""

import difflib
from collections.abc import Iterable


class OnecycleError(Exception):
    """A failure that a user can act on: its text is one line and says what to do."""

    exit_code = 1


class RecipeError(OnecycleError):
    """Wrong usage, or a recipe that can't be."""

    exit_code = 2


class DataError(OnecycleError):
    """Images or labels that are missing or can't be used."""

    exit_code = 3


class DivergedError(OnecycleError):
    """The loss is no longer a finite number."""

    exit_code = 4


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


def one_line(error: Exception) -> str:
    """What `error` says, without line breaks."""
    return " ".join(str(error).split()) or type(error).__name__
