#!/usr/bin/env bash
# clang-format with .clang-format on every C file: tests/format.sh [CLANG-FORMAT]
# Versions differ in what they make of the same settings: the files follow version 14 (Debian 12), and others are not asked.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
format=${1:-clang-format}
if ! command -v "$format" >/dev/null || ! "$format" --version | grep -q 'version 14\.'; then
    echo "clang-format 14 is not installed" >&2
    exit 77
fi
mapfile -t files < <(find loader runtime vision tools tests \( -name '*.c' -o -name '*.h' \) -print 2>/dev/null | sort)
"$format" --dry-run -Werror "${files[@]}"
echo "${#files[@]} files are formatted"
