"""What every verb of the command line shares: the app, common options, and how it ends."""

import atexit
import errno
import gc
import io
import os
import sys
from typing import Annotated

from cyclopts import App, CycloptsError, Parameter, UnknownOptionError, UnusedCliTokensError

from onecycle.errors import DiskError, OnecycleError, RecipeError

app = App(
    name="onecycle",
    help="Train a small image classifier in one cycle, on the machine you have.",
    version_flags=["--version"],
    help_format="plaintext",
)
Set = Annotated[list[str] | None, Parameter(name="--set", negative=())]
Quiet = Annotated[bool, Parameter(name=["--quiet", "-q"], negative=())]
Flag = Annotated[bool, Parameter(negative=())]
Json = Annotated[bool, Parameter(name="--json", negative=())]


def main() -> None:
    """Run the command line and exit with the code that the outcome has."""
    # Python would look through all of torch for garbage before it leaves: more than a second.
    atexit.register(gc.freeze)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a name that the terminal has no letters for
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        _check_empty(sys.argv[1:])
        app(sys.argv[1:], exit_on_error=False, print_error=False, result_action="return_value")
        if sys.stdout:
            sys.stdout.flush()
    except OnecycleError as error:
        _stop(str(error), error.exit_code)
    except CycloptsError as error:
        _stop(_wrong_use(error), RecipeError.exit_code)
    except BrokenPipeError:  # as by `| head`, which wants no more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(141) from None
    except OSError as error:
        if error.errno != errno.ENOSPC:
            if error.filename is None:
                raise
            _stop(f"{error.filename}: {error.strerror}", DiskError.exit_code)
        # Of the files of a run each says so itself: this is what is printed, to a full disk.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        _stop(f"cannot write the output: {error.strerror}", DiskError.exit_code)
    except KeyboardInterrupt:
        _stop("stopped; a run that has begun goes on with: onecycle train --resume RUN", 130)


def _wrong_use(error: CycloptsError) -> str:
    """What is wrong with the words of the command line, and where to look."""
    verb = next((word for word in sys.argv[1:2] if word in app), "")
    if isinstance(error, UnknownOptionError):
        from onecycle.recipe.schema import Recipe

        key = (error.token.keyword or "").lstrip("-").replace("-", "_")
        settable = any("--set" in argument.names for argument in error.argument_collection)
        if settable and key in Recipe.model_fields:
            return f"--{key.replace('_', '-')} is part of the recipe: --set {key}=VALUE"
    if isinstance(error, UnusedCliTokensError) and error.unused_tokens:
        extra = " ".join(error.unused_tokens)
        return f"'{extra}' belongs to no option: onecycle {verb} --help lists them"
    said = " ".join(str(error).split())
    return f"{said} (onecycle {verb + ' ' if verb else ''}--help lists what there is)"


def _check_empty(words: list[str]) -> None:
    """RecipeError for an empty word, such as a shell makes of a variable that isn't set."""
    if "" in words:
        before = " ".join(words[: words.index("")])
        raise RecipeError(f"what comes after '{before}' is empty: give it a value, or leave it out")


def _stop(message: str, code: int) -> None:
    print(f"onecycle: {message}", file=sys.stderr)
    raise SystemExit(code)
