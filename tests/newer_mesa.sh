#!/usr/bin/env bash
# Runs a program with the libraries of build/mesa (tools/setup.sh build tests), so that the newer Mesa there can be loaded.
#   usage: VK_DRIVER_FILES=$(tests/drivers.sh newer_lavapipe) tests/newer_mesa.sh PROGRAM [ARGUMENT…]
set -euo pipefail
libraries=$(cd "$(dirname "${BASH_SOURCE[0]}")/../build/mesa/usr/lib/x86_64-linux-gnu" && pwd)
exec "$libraries/ld-linux-x86-64.so.2" --library-path "$libraries" "$@"
