#!/usr/bin/env bash
# Prints the path of a driver's manifest: tests/drivers.sh lavapipe|swiftshader
# Fails, saying why, where it is not installed.
set -euo pipefail
case ${1:-} in
lavapipe) places=(/usr/share/vulkan/icd.d/lvp_icd.json /usr/share/vulkan/icd.d/lvp_icd.*.json) ;;
swiftshader) places=(/usr/lib/chromium/vk_swiftshader_icd.json) ;;
*) echo "usage: tests/drivers.sh lavapipe|swiftshader" >&2; exit 2 ;;
esac
for place in "${places[@]}"; do
    [ -e "$place" ] && echo "$place" && exit
done
echo "$1 is not installed (looked for ${places[*]}); tools/setup.sh build tests installs it where the system has it" >&2
exit 1
