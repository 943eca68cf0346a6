#!/usr/bin/env bash
# clang-tidy with the checks of .clang-tidy on every C file but the fuzz targets: tests/tidy.sh BUILD [CLANG-TIDY [FILE…]]
# BUILD holds compile_commands.json. About a minute and a half on two cores.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
build=${1:?"usage: tests/tidy.sh BUILD [CLANG-TIDY [FILE…]]"} tidy=${2:-clang-tidy}
if ! command -v "$tidy" >/dev/null; then
    echo "clang-tidy is not installed" >&2
    exit 77
fi
files=("${@:3}")
[ $# -gt 2 ] || mapfile -t files < <(find loader runtime vision tools tests -path tests/fuzz -prune -o -name '*.c' -print 2>/dev/null | sort)
# One file a process: clang-tidy 14 takes what it saw in one file into the next.
if ! said=$(printf '%s\0' "${files[@]}" | xargs -0 -n 1 -P "$(nproc)" "$tidy" -p "$build" --quiet 2>&1); then
    grep -v 'warnings\? generated\|^Suppressed\|^Use -' <<<"$said"
    exit 1
fi
echo "${#files[@]} files are clean"
