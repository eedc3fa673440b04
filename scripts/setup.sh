# Sourced by run.sh and test.sh: makes .venv beside them and installs the package into it, pinned.
# usage: setup EXTRAS   (such as "[test]", or "" for none); sets $venv

setup() {
    local here python candidate stamp
    here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
    venv="$here/.venv"
    # Without pip it is what Debian's python3 leaves behind that lacks python3-venv.
    if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
        python=""
        for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
            if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
                python=$candidate
                break
            fi
        done
        if [ -z "$python" ]; then
            echo "Python 3.11 or later is needed: install it, or name it with PYTHON=/path/to/python3" >&2
            exit 1
        fi
        "$python" -m venv "$venv"
    fi
    # The stamp makes a second start quick: it changes when what is to be installed does.
    stamp="$here $1 $(cat "$here/pyproject.toml" "$here/constraints.txt" | cksum)"
    if [ "$(cat "$venv/installed$1" 2>/dev/null)" != "$stamp" ]; then
        echo "installing into .venv (once; PyTorch is large) ..." >&2
        PIP_CONSTRAINT="$here/constraints.txt" "$venv/bin/python" -m pip install \
            --quiet --disable-pip-version-check --editable "$here$1" >&2
        printf '%s' "$stamp" >"$venv/installed$1"
    fi
}
