#!/usr/bin/env bash
# From nothing to answers in two passes: installs what is missing, builds into build/, gets SmolLM2-135M-Instruct (93 MB),
# factors it (350 MB) and asks one question of each kind and one about a picture. What is there already is kept: the next run is quick and
# uses no network.
#   usage: tools/quickstart.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
models=build/models
factored=$models/smollm2.gguf

bold='' plain=''
if [ -t 2 ] && [ -z "${NO_COLOR:-}" ]; then bold=$'\033[1m' plain=$'\033[0m'; fi
say() { printf '\n%s== %s%s\n' "$bold" "$*" "$plain" >&2; }
tell() { printf '%s\n' "$*" >&2; }

# The tests need more packages (tools/check.sh); a build folder that has them keeps them.
build_program() {
    local options=()
    [ -e build/CMakeCache.txt ] || options=(-DZSIGMA_TESTS=OFF)
    cmake -S . -B build -G Ninja "${options[@]}" >build/cmake.log || { cat build/cmake.log >&2; exit 1; }
    if [ -t 1 ]; then ninja -C build zsigma_program; else ninja -C build --quiet zsigma_program | sed '/no work to do/d'; fi
    tell "build/zsigma, $(du -h build/zsigma | cut -f 1)"
}

# The driver of the graphics card where there is one; Mesa's otherwise, which also runs on the CPU.
find_device() {
    local devices
    if ! devices=$(build/zsigma devices 2>/dev/null); then
        tell "none that can be used: installing Mesa's drivers"
        tools/setup.sh build driver
        devices=$(build/zsigma devices)
    fi
    tell "$devices"
    if grep -qE '^   (discrete|integrated|virtual),' <<<"$devices"; then return; fi
    tell
    tell "NO GPU IS USED: answers are computed on the CPU, many times slower than a GPU would."
    tell "If there is a graphics card, install its Vulkan driver and run this again."
    if grep -q 'Mesa 2[0-3]\.' <<<"$devices"; then
        tell "This Mesa is slow at it; a newer one is several times faster: tools/setup.sh build driver"
    fi
    # Naming it spares every question the warning.
    device=(--device "$(awk '/^[0-9]/ { i = $1 } /^   cpu,/ { print i; exit }' <<<"$devices")")
}

factor_model() {
    if [ -e "$factored" ]; then tell "$factored"; else build/zsigma factor "$model" -o "$factored"; fi
}

ask() {
    printf '\n%s> %s%s\n' "$bold" "$1" "$plain"
    build/zsigma ask -m "$factored" --experts assets/experts -n 40 "${device[@]}" -- "$1"
}

ask_about() {
    printf '\n%s%s> %s%s\n' "$bold" "$1" "$2" "$plain"
    build/zsigma ask -m "$factored" --mmproj assets/vision/mmproj.gguf --expert assets/vision/vision.safetensors --image "$1" "${device[@]}" -- "$2"
}

device=()
say "Packages"
tools/setup.sh build
tell "all there"
say "Program"
build_program
say "Vulkan devices"
find_device
say "Model: SmolLM2-135M-Instruct"
model=$(tools/get_model.sh "$models")
tell "$model"
say "Factors: every weight matrix as U, sigma and V"
factor_model
say "Questions: pass 1 finds out what kind each is, pass 2 answers it under the expert for that"
tell "Below each answer: the expert that gave it, and how likely pass 1 thought each kind. \"base\" is the model as it came."
ask 'Math: what is 17 + 25? Reply with the number only.'
ask "What does this Python code print? Reply with the output only.
\`\`\`python
s = 'window'
print(s + 'pane')
\`\`\`"
ask 'Robert is married to Hannah. They have a child called Atlas. How is Hannah related to Atlas? Provide the relationship in one word.'
ask 'Write a short greeting to a friend.'
say "A picture: a small tower sees it, and the vision expert reads what the tower saw"
ask_about assets/vision/green-circle.png 'what color is the shape?'
ask_about assets/vision/red-triangle.png 'is there a triangle in the image?'
say "Your turn:  build/zsigma chat -m $factored --experts assets/experts"
