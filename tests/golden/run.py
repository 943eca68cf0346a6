"""One golden run: makes the factored model of a type where it is not there yet and hands it to tests/golden/golden.c.

    run.py dense|f32|f16|q8_0|composed:TYPE   environment: ZSIGMA, ZSIGMA_GOLDEN (programs), ZSIGMA_MODEL (SmolLM2-135M-Instruct.Q4_1.gguf),
                                     ZSIGMA_OUTPUT (folder); without ZSIGMA_MODEL exit 77: skipped
"""
import os
import subprocess
import sys


def main():
    kind, model = sys.argv[1], os.environ.get("ZSIGMA_MODEL")
    if not model:
        print("ZSIGMA_MODEL does not name SmolLM2-135M-Instruct.Q4_1.gguf: skipped")
        return 77
    if kind.startswith("composed"):  # of what golden.f16 left
        model = os.path.join(os.environ["ZSIGMA_OUTPUT"], "smollm2-f16.gguf")
    elif kind != "dense":
        factored = os.path.join(os.environ["ZSIGMA_OUTPUT"], f"smollm2-{kind}.gguf")
        made = subprocess.run([os.environ["ZSIGMA"], "factor", model, "-o", factored, "--type", kind, "--force"])
        if made.returncode:
            return 1
        model = factored
    return subprocess.run([os.environ["ZSIGMA_GOLDEN"], model, kind]).returncode


sys.exit(main())
