#!/usr/bin/env bash
# Sets everything up in .venv, then trains: the embedded digits, or what --data names.
set -euo pipefail
. "$(dirname "$0")/scripts/setup.sh"
setup ""
exec "$venv/bin/onecycle" train "$@"
