#!/bin/sh
# Makes the virtual environment $1 with the first Python that is new enough, or says in one line what is missing.
set -u
for python in ${PYTHON:-} python3.11 python3.12 python3.13 python3; do
    if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
        echo "Making $1 with $("$python" --version 2>&1) ..."
        "$python" -m venv "$1" && exit 0
        echo "LibraGate: '$python -m venv' failed. On Debian or Ubuntu: apt-get install python3-venv" >&2
        rm -rf "$1"
        exit 2
    fi
done
echo "LibraGate needs Python 3.11 or newer, and found none. Install it, or name it: make PYTHON=/path/to/python3.11 ..." >&2
exit 2
