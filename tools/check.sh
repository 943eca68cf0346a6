#!/usr/bin/env bash
# All tests: installs what is missing, builds with warnings as errors, runs everything, ends with CTest's summary.
#   usage: tools/check.sh [arguments of ctest, e.g. -R unit]
# Tests labelled long (the starter experts' accuracy on 280 questions, a quarter of an hour, and composing all of SmolLM2) run only with
# ZSIGMA_LONG=1.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
build=build/check
say() { printf '\n== %s\n' "$*" >&2; }

say "Installing what is missing"
tools/setup.sh build tests
say "Getting the model"
ZSIGMA_MODEL=$(realpath "$(tools/get_model.sh build/models)")
export ZSIGMA_MODEL
say "Getting the tokenizers"
ZSIGMA_TOKENIZERS=$(realpath "$(tools/get_tokenizers.sh build/tokenizers)")
export ZSIGMA_TOKENIZERS

sys=()
[ -e build/sys/complete ] && sys=(-DZSIGMA_SYS="$PWD/build/sys")
# configures FOLDER with OPTIONS… and builds TARGET in it.
build() {
    local folder=$1 target=$2
    shift 2
    cmake -S . -B "$folder" -G Ninja -DZSIGMA_WERROR=ON "${sys[@]}" "$@" >"$folder.log" 2>&1 || { cat "$folder.log" >&2; exit 1; }
    ninja -C "$folder" --quiet "$target"
}
say "Building"
mkdir -p build
build $build all -DCMAKE_BUILD_TYPE=Release
say "Kernels against their budget"
shaders=$($build/tests/test_shader_modules 2>&1) || { echo "$shaders" >&2; exit 1; }
grep '^SPIR-V' <<<"$shaders" >&2
say "Building with AddressSanitizer and UndefinedBehaviorSanitizer"
build build/sanitize all -DCMAKE_BUILD_TYPE=RelWithDebInfo -DZSIGMA_SANITIZE=address,undefined
say "Building the fuzz targets"
build build/fuzz fuzz -DCMAKE_C_COMPILER=clang -DZSIGMA_FUZZ=ON

# The tests' own caches, so that a run does not lean on what an earlier program left.
mkdir -p build/check-cache
XDG_CACHE_HOME=$(realpath build/check-cache)
export XDG_CACHE_HOME

VK_DRIVER_FILES=$(tests/drivers.sh lavapipe)
export VK_DRIVER_FILES

say "Fuzzing"
ctest --test-dir build/fuzz -L fuzz -j2 --output-on-failure --no-tests=error
say "Tests under the sanitizers"
# Drivers keep what they allocate until the process ends: no leaks are looked for.
ASAN_OPTIONS=detect_leaks=0 ctest --test-dir build/sanitize -L sanitize -j2 --output-on-failure --no-tests=error
left_out=()
if [ -z "${ZSIGMA_LONG:-}" ]; then
    left_out=(-LE long)
    say "Left out without ZSIGMA_LONG=1: $(ctest --test-dir $build -N -L long | awk '/Test +#/ { print $NF }' | paste -sd ' ')"
fi
say "Tests"
ctest --test-dir $build "${left_out[@]}" -j2 --output-on-failure --no-tests=error "$@"
