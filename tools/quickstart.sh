#!/usr/bin/env bash
# From nothing to answers in two passes: installs what is missing, builds into build/, gets SmolLM2-135M-Instruct (93 MB),
# factors it (350 MB) and asks one question of each kind. What is there already is kept, so that the next run is quick.
#   usage: tools/quickstart.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
models=build/models
factored=$models/smollm2.gguf

say() { printf '\n== %s\n' "$*" >&2; }

build_program() {
    local options=()
    # The tests need more packages (tools/check.sh); a build folder that has them keeps them.
    [ -e build/CMakeCache.txt ] || options=(-DZSIGMA_TESTS=OFF)
    cmake -S . -B build -G Ninja "${options[@]}" >build/cmake.log || { cat build/cmake.log >&2; exit 1; }
    ninja -C build zsigma_program
}

# The driver of the graphics card where there is one; Mesa's otherwise, which also runs on the CPU.
find_device() {
    local devices
    if ! devices=$(build/zsigma devices 2>/dev/null); then
        say "No usable Vulkan device: installing Mesa's drivers"
        tools/setup.sh build driver
        devices=$(build/zsigma devices)
    fi
    printf '%s\n' "$devices" >&2
    if ! grep -qE '^   (discrete|integrated|virtual),' <<<"$devices"; then
        say "NO GPU IS USED: answers are computed on the CPU, many times slower than a GPU would."
        printf 'If there is a graphics card, install its Vulkan driver and run this again.\n' >&2
        # Naming it spares every question the warning.
        device=(--device "$(awk '/^[0-9]/ { i = $1 } /^   cpu,/ { print i; exit }' <<<"$devices")")
    fi
}

factor_model() {
    [ -e "$factored" ] && return
    say "Factoring it: every weight matrix becomes U, sigma and V"
    build/zsigma factor "$model" -o "$factored"
}

ask() {
    printf '\n> %s\n' "$1"
    build/zsigma ask -m "$factored" --experts assets/experts -n 40 "${device[@]}" -- "$1"
}

device=()
say "Installing what is missing"
tools/setup.sh build
say "Building"
build_program
say "Vulkan devices"
find_device
say "Getting the model"
model=$(tools/get_model.sh "$models")
factor_model
say "Asking: pass 1 finds out what kind of question it is, pass 2 answers under the expert for it"
printf 'After each answer: the expert that gave it and how likely pass 1 thought each kind. "base" is the model as it came.\n' >&2
ask 'Sam has 25 coins and buys 17 more. How many coins does Sam have now? Reply with the number only.'
ask "What does this Python code print? Reply with the output only.
\`\`\`python
s = 'window'
print(s.upper())
\`\`\`"
ask 'Robert is married to Hannah. They have a child called Atlas. How is Hannah related to Atlas? Provide the relationship in one word.'
ask 'Write a short greeting to a friend.'
say "Your turn:  build/zsigma chat -m $factored --experts assets/experts"
