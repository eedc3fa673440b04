"""`python -m onecycle` is the command line."""

from onecycle.cli import main

main()
