"""The gradient by z against autograd: SmolLM2 under expert-random-all, layers 0, 13 and 29, every matrix (DESIGN.md §6).

    gradient.py f32|f16      environment as run.py's, which makes the factored model where it is there already; without
                             ZSIGMA_MODEL exit 77: skipped

z-grad.safetensors holds d log π(answer | prompt) / dz of the second entry of logprobs.json, by torch in f32 (the data's README.md).
"""
import json
import math
import os
import struct
import subprocess
import sys

COSINE, NORM = 0.9999, 0.005
HERE = os.path.dirname(os.path.abspath(__file__))


def read_safetensors(path):
    with open(path, "rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
        data = file.read()
    header.pop("__metadata__", None)
    return {name: [x[0] for x in struct.iter_unpack("<f", data[slice(*tensor["data_offsets"])])] for name, tensor in header.items()}


def norm(values):
    return math.sqrt(sum(x * x for x in values))


def main():
    kind, model, output = sys.argv[1], os.environ.get("ZSIGMA_MODEL"), os.environ["ZSIGMA_OUTPUT"]
    if not model:
        print("ZSIGMA_MODEL does not name SmolLM2-135M-Instruct.Q4_1.gguf: skipped")
        return 77
    factored, made = os.path.join(output, f"smollm2-{kind}.gguf"), os.path.join(output, f"gradient-{kind}.safetensors")
    zsigma, data = os.environ["ZSIGMA"], os.path.join(output, f"gradient-{kind}.jsonl")
    if not os.path.exists(factored) and subprocess.run([zsigma, "factor", model, "-o", factored, "--type", kind]).returncode:
        return 1
    with open(os.path.join(HERE, "logprobs.json"), encoding="utf-8") as file:
        case = json.load(file)[1]
    with open(os.path.join(HERE, "expert-logprobs.json"), encoding="utf-8") as file:
        logprob = json.load(file)["all"][1]["answer_logprob_sum"]
    with open(data, "w", encoding="utf-8") as file:
        file.write(json.dumps({"id": "golden", "prompt": case["prompt"], "answer": case["answer"]}) + "\n")
    run = subprocess.run([zsigma, "train", "-m", factored, "--task", "sft", "--data", data, "--dump-gradient", made, "--force", "--json",
                          "--expert", os.path.join(HERE, "expert-random-all.safetensors")], stdout=subprocess.PIPE)
    if run.returncode:
        return 1
    report = json.loads(run.stdout)
    print(f"log-probability {report['logprob']:.5f} ({logprob:.5f}), {report['tokens_per_s']:.1f} tokens/s")
    ours, golden, failed, worst_cosine, worst_norm = read_safetensors(made), read_safetensors(os.path.join(HERE, "z-grad.safetensors")), 0, 1, 0
    for name, expected in sorted(golden.items()):
        values = ours[name]
        cosine = sum(a * b for a, b in zip(values, expected, strict=True)) / (norm(values) * norm(expected))
        off = abs(norm(values) / norm(expected) - 1)
        worst_cosine, worst_norm = min(worst_cosine, cosine), max(worst_norm, off)
        if not (cosine >= COSINE and off <= NORM):
            failed += 1
            print(f"FAILED  {name}: cosine {cosine:.7f}, norm off by {100 * off:.3f} %")
    print(f"{kind}: {len(golden)} matrices, cosine ≥ {worst_cosine:.7f} (≥ {COSINE}), norm within {100 * worst_norm:.3f} % (≤ {100 * NORM} %)")
    return 1 if failed or len(golden) != 21 or len(ours) != 210 else 0


sys.exit(main())
