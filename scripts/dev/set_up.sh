#!/usr/bin/env bash
# Makes or updates .venv from requirements.txt; make calls it where .venv/ready is missing or old. .venv/ready exists
# only while everything is installed. PYTHON names the interpreter of a new .venv; by default the first that fits.
set -euo pipefail
cd "$(dirname "$0")/../.."
fail() { echo "error: $1" >&2; exit 2; }

unfit() {  # PYTHON: print why it cannot make .venv; nothing if it can
    local version
    command -v "$1" > /dev/null || { echo "not found"; return; }
    version=$("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2> /dev/null) || { echo "does not start"; return; }
    case $version in 3.11 | 3.12 | 3.13) ;; *) echo "Python $version"; return ;; esac
    "$1" -c 'import venv, ensurepip' 2> /dev/null || echo "Python $version without venv"
}

# pip inherits this lock: while pip runs, even if make was killed, nothing else changes .venv.
exec 9<> requirements.txt
flock --nonblock 9 || fail "another make is setting up .venv; wait until it is done, then repeat the command"

# A .venv that was interrupted or lost its Python is made again: pip takes half a package for a whole one. The mark is
# deleted after the packages, in case this is interrupted too.
if [ -e .venv/unfinished ] || ! .venv/bin/python -c '' 2> /dev/null; then rm -rf .venv/lib .venv/bin .venv; fi

python=
if [ -e .venv ]; then
    python=.venv/bin/python
    reason=$(unfit $python)
    [ -z "$reason" ] || fail "$python: $reason; expected 3.11, 3.12 or 3.13 with venv: delete .venv and repeat the command"
else
    candidates=(python3.13 python3.12 python3.11 python3)
    [ -z "${PYTHON:-}" ] || candidates=("$PYTHON")
    found=
    for candidate in "${candidates[@]}"; do
        reason=$(unfit "$candidate")
        [ -n "$reason" ] || { python=$candidate; break; }
        found+="${found:+, }$candidate ($reason)"
    done
    [ -n "$python" ] || fail "tried $found; expected Python 3.11, 3.12 or 3.13 with venv: install it (Debian, Ubuntu: \
apt-get install python3.12-venv, or 3.11 or 3.13; elsewhere: uv python install 3.12 or pyenv install 3.12), then \
repeat the command, with PYTHON=path/to/python3.12 if it is not on PATH"
    free=$(df -Pk . | awk 'NR == 2 { printf "%.1f", $4 * 1024 / 1e9 }')
    if awk "BEGIN { exit !($free < 7) }"; then
        fail "$free GB free in $PWD; .venv needs 7 GB: make room, then repeat the command"
    fi
fi

echo "setting up .venv with $(command -v "$python"): a few minutes and 7 GB the first time (log: .venv/pip.log)"
mkdir -p .venv
rm -f .venv/ready
touch .venv/unfinished
if ! { "$python" -m venv .venv \
    && .venv/bin/python -m pip install --disable-pip-version-check --progress-bar off -r requirements.txt; \
    } > .venv/pip.log 2>&1; then
    # A failed update that only downloaded has changed nothing: keep the packages.
    if [ "$python" = .venv/bin/python ] && ! grep -q "^Installing collected packages" .venv/pip.log; then
        rm .venv/unfinished
    fi
    reason=$(grep . .venv/pip.log | tail -n 1 || true)
    case $reason in
        *"No space left"*) check="make room in $PWD, ${TMPDIR:-/tmp} and pip's cache" ;;
        *) check="check that PyPI can be reached (proxy: HTTPS_PROXY, mirror: PIP_INDEX_URL)" ;;
    esac
    fail "pip could not install requirements.txt: ${reason#ERROR: }; $check, then repeat the command (log: .venv/pip.log)"
fi
touch .venv/unfinished
mv .venv/unfinished .venv/ready
