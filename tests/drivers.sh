#!/usr/bin/env bash
# Prints the path of a driver's manifest: tests/drivers.sh lavapipe|newer_lavapipe|swiftshader|radv-FAMILY
# Fails, saying why, where it is not installed or, for radv-FAMILY, where the installed Mesa does not know the card's family.
set -euo pipefail
case ${1:-} in
newer_lavapipe) places=("$(dirname "${BASH_SOURCE[0]}")"/../build/mesa/lvp_icd.json) ;; # programs run on it by newer_mesa.sh
lavapipe) places=(/usr/share/vulkan/icd.d/lvp_icd.json /usr/share/vulkan/icd.d/lvp_icd.*.json) ;;
swiftshader) places=(/usr/lib/chromium/vk_swiftshader_icd.json) ;;
radv-?*) places=(/usr/share/vulkan/icd.d/radeon_icd.json /usr/share/vulkan/icd.d/radeon_icd.*.json) ;;
*) echo "usage: tests/drivers.sh lavapipe|newer_lavapipe|swiftshader|radv-FAMILY" >&2; exit 2 ;;
esac
# Whether the library that a manifest names knows a family: RADV ends the process when asked for another one.
knows() {
    local library
    library=$(sed -n 's/.*"library_path": *"\([^"]*\)".*/\1/p' "$1")
    [ -e "$library" ] || library=$(find /usr/lib /usr/lib64 -name "${library##*/}" -print -quit 2>/dev/null)
    [ -n "$library" ] && [ "$(tr '\0' '\n' <"$library" | grep -aciFx "$2")" -gt 0 ]
}
for place in "${places[@]}"; do
    [ -e "$place" ] || continue
    if [[ $1 == radv-* ]] && ! knows "$place" "${1#radv-}"; then
        echo "the installed Mesa's RADV does not know the family ${1#radv-}" >&2
        exit 1
    fi
    echo "$place"
    exit
done
echo "$1 is not installed (looked for ${places[*]}); tools/setup.sh build tests installs it where the system has it" >&2
exit 1
