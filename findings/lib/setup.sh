# For the findings: a temporary folder that goes at the end, and pinned public packages in it.
# shellcheck shell=bash
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

# python PACKAGE==VERSION...: a virtual environment with these.
python() {
    python3 -m venv "$folder/venv"
    "$folder/venv/bin/pip" install --quiet --disable-pip-version-check "$@"
    PATH=$folder/venv/bin:$PATH
    export PYTHONPATH=$here
}

# debian PACKAGE...: unpacked and not installed, so that no service starts.
debian() {
    mkdir -p "$folder/apt/lists/partial" "$folder/apt/archives/partial"
    local apt=(apt-get -qq -o Dir::State::lists="$folder/apt/lists" -o Dir::Cache="$folder/apt"
        -o Dir::Cache::archives="$folder/apt/archives" -o Debug::NoLocking=1
        -o APT::Sandbox::User="$(id -un)")
    "${apt[@]}" update
    "${apt[@]}" install -y --no-install-recommends --download-only --reinstall "$@" >/dev/null
    local package
    for package in "$folder"/apt/archives/*.deb; do
        dpkg-deb --extract "$package" "$folder/debian"
    done
    export DEBIAN=$folder/debian
}

# same SEEN EXPECTED: prints what was seen, and fails if it is no longer what it was.
same() {
    printf '%s\n' "$1"
    if [ "$1" != "$2" ]; then
        printf 'CHANGED. It was:\n%s\n' "$2" >&2
        exit 1
    fi
}
