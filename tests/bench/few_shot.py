#!/usr/bin/env python3
"""Few-shot search beside the prefill rate, which is measured before and after it.

    usage: few_shot.py MODEL.gguf EXPERTS EXAMPLES.jsonl [--task NAME] [--count N] [--population N] [--iterations N] [--rounds N] [--zsigma PROGRAM]

MODEL is factored, EXPERTS a folder of experts for it. The first --count examples (default 5) are solved by 8 members in at most 5 iterations unless
said otherwise, answers have 16 tokens at most. Tokens are those that had to be computed: of prompts, of right answers, and of answers, whether
drawn one by one or foreseen by a draft. Exit status 1 when a bar is missed: 0.9 × the rate of a prompt of 512, and 300 s.
"""
import argparse
import itertools
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile

PREFILL, LEAST, MOST_SECONDS = 512, 0.9, 300


def main():
    parser = argparse.ArgumentParser(usage=__doc__, add_help=False)
    parser.add_argument("model")
    parser.add_argument("experts")
    parser.add_argument("examples")
    parser.add_argument("--task", default="label")
    parser.add_argument("--zsigma", default=str(pathlib.Path(__file__).resolve().parents[2] / "build" / "zsigma"))
    for name, value in [("count", 5), ("population", 8), ("iterations", 5), ("rounds", 3)]:
        parser.add_argument(f"--{name}", type=int, default=value)
    args = parser.parse_args()
    run = lambda *options: json.loads(subprocess.run([args.zsigma, *options, "--json", "--quiet"], check=True, stdout=subprocess.PIPE).stdout)

    def rate():
        options = ["--mode", "factored", "--only", "prefill", "--runs", "2", "--prefill-tokens", str(PREFILL)]
        return run("bench", "-m", args.model, *options)["figures"][f"prefill_{PREFILL}"]["value"]

    searches, ratios = [], []
    with tempfile.TemporaryDirectory() as folder:
        examples = pathlib.Path(folder) / "examples.jsonl"
        with open(args.examples) as file:
            examples.write_text("".join(itertools.islice(file, args.count)))
        for round in range(args.rounds):
            before = rate()
            search = run("adapt", "-m", args.model, "--experts", args.experts, "--examples", str(examples), "--task", args.task, "--seed", "1", "-n", "16",
                         "--population", str(args.population), "--iterations", str(args.iterations), "--held-out", "0", "--force", "-o", f"{folder}/mix.safetensors")
            prefill = (before + rate()) / 2
            searches.append(search)
            ratios.append(search["tokens_per_s"] / prefill)
            print(f"round {round + 1}: prefill {prefill:.1f} tokens/s; search {search['seconds']:.1f} s, {search['tokens_per_s']:.1f} tokens/s, {ratios[-1]:.2f} ×; "
                  f"tokens of prompts {search['prefill_tokens']}, drawn {search['decode_tokens']}, foreseen {search['accepted_tokens']}", flush=True)
    seconds, ratio = statistics.median(s["seconds"] for s in searches), statistics.median(ratios)
    print(f"median: {seconds:.1f} s, {ratio:.2f} × the prefill rate")
    return int(ratio < LEAST or seconds > MOST_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
