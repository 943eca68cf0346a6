#!/usr/bin/env bash
# zsigma beside llama.cpp on the driver that runs on the CPU (lavapipe, two threads), and llama.cpp's CPU backend.
#   usage: tests/bench/side_by_side.sh FOLDER DENSE.gguf FACTORED.gguf [ROUNDS]
# FOLDER keeps node-llama-cpp (installed by npm when it is not there) and the results as JSON. DENSE is
# SmolLM2-135M-Instruct.Q4_1.gguf, which llama.cpp reads too; FACTORED was made from it by `zsigma factor --type f16`.
# ZSIGMA is the program, build/zsigma by default. Every round (default 3) measures each once, so that what else the machine
# does hits all alike; the table has medians, and how many processors each got. PREFILL and DECODE are numbers of tokens,
# 512 and 128 by default, which the bars are for. Everyone runs as it comes: zsigma asks the driver for 512 bits where the processor has
# them, llama.cpp gets the driver's own 256 (at 512 its kernels do not compile in a quarter of an hour); LP_NATIVE_VECTOR_WIDTH
# sets both. llama.cpp's CPU backend is given up after CPU_LIMIT seconds, 120 by default. Status 1 when a bar is missed.
set -euo pipefail
[ $# -ge 3 ] || { sed -n '2,12s/^# \?//p' "$0" >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
folder=$(cd "$1" && pwd) dense=$(realpath "$2") factored=$(realpath "$3") rounds=${4:-3}
prefill=${PREFILL:-512} decode=${DECODE:-128}
zsigma=$(realpath "${ZSIGMA:-$here/../../build/zsigma}")
version=3.22.1

VK_DRIVER_FILES=$("$here/../drivers.sh" lavapipe)
export VK_DRIVER_FILES LP_NUM_THREADS=2 GGML_VK_VISIBLE_DEVICES=0

installed=$(node -p "require('$folder/node_modules/node-llama-cpp/package.json').version" 2>/dev/null || true)
if [ "$installed" != "$version" ]; then
    # The prebuilt backends are packages of their own; the install script would look for a compiler.
    npm install --prefix "$folder" --ignore-scripts --no-audit --no-fund --silent "node-llama-cpp@$version"
fi
cp "$here/llama_cpp.mjs" "$folder/"

# measure NAME COMMAND…: its JSON and, in NAME.time, wall, user and system seconds. Written whole or not at all.
TIMEFORMAT='%R %U %S'
measure() {
    local name=$1-$round
    shift
    echo "measuring $name …" >&2
    { time "$@" >"$folder/$name.part" 2>"$folder/$name.log"; } 2>"$folder/$name.time" || { cat "$folder/$name.log" >&2; return 1; }
    mv "$folder/$name.part" "$folder/$name.json"
}
for ((round = 1; round <= rounds; round++)); do
    measure llama-vulkan node "$folder/llama_cpp.mjs" "$dense" vulkan 1 "$prefill" "$decode"
    measure zsigma-dense "$zsigma" bench -m "$dense" --only prefill,decode --runs 1 --prefill-tokens "$prefill" --decode-tokens "$decode" --json
    measure zsigma-factored "$zsigma" bench -m "$factored" --mode factored --only prefill,decode --runs 1 --prefill-tokens "$prefill" --decode-tokens "$decode" --json
    # (Its status is the timeout's: no figure then.)
    measure llama-cpu timeout "${CPU_LIMIT:-120}" node "$folder/llama_cpp.mjs" "$dense" cpu 1 "$prefill" "$decode" || true
done

python3 - "$folder" "$rounds" "$(nproc)" "$prefill" "$decode" <<'END'
import json, os, statistics, sys
folder, rounds, processors, prefill, decode = sys.argv[1], int(sys.argv[2]), *sys.argv[3:]
def load(name, round):
    with open(f"{folder}/{name}-{round}.json") as file:
        result = json.load(file)
    with open(f"{folder}/{name}-{round}.time") as file:
        wall, user, system = map(float, file.read().split())
    return result, (user + system) / wall
def figures(name):
    rows = []
    for round in range(1, rounds + 1):
        result, share = load(name, round)
        if "figures" in result:
            rates = [result["figures"][figure]["value"] for figure in (f"prefill_{prefill}", f"decode_{decode}")]
        else:
            rates = [result["prefill_tokens_per_s"], result["decode_tokens_per_s"]]
        rows.append([*rates, share])
    return [statistics.median(column) for column in zip(*rows)]
device = load("zsigma-dense", 1)[0]
print(f"{device['device']}, {device['driver']}, {processors} processors, medians of {rounds} rounds\n")
print(f"{'tokens/s':32} {'prefill ' + prefill:>12} {'ratio':>8} {'bar':>7} {'decode ' + decode:>12} {'ratio':>8} {'bar':>7} {'processors':>11}")
base, missed = figures("llama-vulkan"), False
for name, title, bars in [("llama-vulkan", "llama.cpp, Vulkan, Q4_1", None), ("zsigma-dense", "zsigma, dense Q4_1", (30, 4.5)),
                          ("zsigma-factored", "zsigma, factored f16", (20, 2.8)), ("llama-cpu", "llama.cpp, CPU backend, Q4_1", None)]:
    if not all(os.path.exists(f"{folder}/{name}-{round}.json") for round in range(1, rounds + 1)):
        print(f"{title:32} did not finish")
        continue
    values, line = figures(name), f"{title:32}"
    for i in range(2):
        line += f" {values[i]:12.2f} {values[i] / base[i]:7.2f}×" + (f" ≥{bars[i]:5.1f}×" if bars else " " * 8)
        missed = missed or bool(bars) and values[i] < bars[i] * base[i]
    print(f"{line} {values[2]:11.2f}")
print("\na bar was missed" if missed else "\nall bars held")
sys.exit(missed)
END
