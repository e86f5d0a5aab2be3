#!/usr/bin/env bash
# Make a virtual environment and install the pinned dependencies: install.sh VENV PYTHON REQUIREMENT
# PYTHON may be empty: the first supported one on the PATH is taken. Safe to repeat, also after an interruption.
set -eu -o pipefail

venv=$1 python=$2 requirement=$3
log=$venv/install.log
supported='import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))'

fail() {
    printf 'error: %s\n' "$1" >&2
    exit 1
}

find_python() {
    local candidate
    for candidate in python3 python3.12 python3.11 python3.10 python; do
        if "$candidate" -c "$supported" 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    fail "Python 3.10, 3.11 or 3.12 is needed, found $(python3 --version 2>/dev/null || echo none); \
install one and name it: make PYTHON=/path/to/python3.12 demo"
}

make_environment() {
    if [ -z "$python" ]; then
        python=$(find_python)
    elif ! "$python" -c "$supported" 2>/dev/null; then
        fail "Python 3.10, 3.11 or 3.12 is needed, PYTHON=$python is \
$("$python" --version 2>/dev/null || echo 'not a Python that runs')"
    fi
    # Debian and Ubuntu ship Python without the part that puts pip into an environment.
    "$python" -c 'import ensurepip, venv' 2>/dev/null || fail "$python cannot make virtual environments; \
on Debian or Ubuntu: sudo apt-get install python3-venv"
    echo "making $venv with $("$python" --version)"
    "$python" -m venv --clear "$venv" || fail "could not make $venv"
}

# Turn pip's output into one line that changes, or, in a log, a line per large download.
show_progress() {
    local line count=0
    while IFS= read -r line; do
        case $line in
            Collecting*) count=$((count + 1)) && say_now "  package $count" ;;
            *Downloading*' MB)'*) say_now "  package $count, ${line#*Downloading }" ;;
            Installing\ collected*) say '  downloads done; unpacking, about a minute' ;;
        esac
    done
}

say() {
    if [ -t 1 ]; then printf '\r\033[K%s\n' "$1"; else printf '%s\n' "$1"; fi
}

say_now() {
    if [ -t 1 ]; then
        printf '\r\033[K%.*s' "$((${COLUMNS:-80} - 1))" "$1"
    elif [[ $1 =~ \(([0-9]{3,})\.[0-9]\ MB\) ]]; then
        printf '%s\n' "$1"
    fi
}

if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    make_environment
elif ! "$venv/bin/python" -c "$supported"; then
    fail "$venv is $("$venv/bin/python" --version), but Python 3.10, 3.11 or 3.12 is needed; \
remove it (make clean) or make another beside it (make VENV=.venv312 demo)"
fi

echo "installing into $venv: about 6 GB, 2 to 5 minutes the first time (details in $log)"
if ! "$venv/bin/python" -m pip install --disable-pip-version-check --no-input --retries 10 \
    -c constraints.txt -e "$requirement" 2>&1 | tee "$log" | show_progress; then
    say ''
    grep -E '^ *(ERROR|error)' "$log" | tail -n 3 >&2 || tail -n 5 "$log" >&2
    fail "the installation stopped (all of it: $log); the same command takes it up again"
fi
