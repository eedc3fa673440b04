#!/usr/bin/env bash
# Sets everything up in .venv, then runs lint, types and tests. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")"
. scripts/setup.sh
setup "[test]"
"$venv/bin/ruff" check .
"$venv/bin/ruff" format --check .
"$venv/bin/mypy"
# Each test computes with one thread, so that two processes fill the smallest machine.
"$venv/bin/pytest" --numprocesses 2 --dist worksteal "$@"
