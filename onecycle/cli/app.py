"""What every verb of the command line shares: the app, common options, and how it ends."""

import atexit
import errno
import gc
import os
import sys
from typing import Annotated

from cyclopts import App, CycloptsError, Parameter

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
    try:
        app(sys.argv[1:], exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
    except OnecycleError as error:
        _stop(str(error), error.exit_code)
    except CycloptsError as error:
        _stop(
            f"{' '.join(str(error).split())} (onecycle --help lists what there is)",
            RecipeError.exit_code,
        )
    except BrokenPipeError:  # as by `| head`, which wants no more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(141) from None
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        # Of the files of a run each says so itself: this is what is printed, to a full disk.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        _stop(f"cannot write the output: {error.strerror}", DiskError.exit_code)
    except KeyboardInterrupt:
        _stop("stopped; a run that has begun goes on with: onecycle train --resume RUN", 130)


def _stop(message: str, code: int) -> None:
    print(f"onecycle: {message}", file=sys.stderr)
    raise SystemExit(code)
