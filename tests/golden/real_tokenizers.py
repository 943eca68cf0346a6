"""Real tokenizers against golden ids (tokenizers/*.json, by tiktoken and sentencepiece).

usage: real_tokenizers.py          environment: ZSIGMA_TOKENIZERS (made by tools/get_tokenizers.sh), TOKENS (the program tokens.c)
Skipped (77) where the tokenizers were not fetched.
"""
import json
import os
import subprocess
import sys
import tempfile

here = os.path.dirname(os.path.abspath(__file__))
# golden file, tokenizer, what its cases hold
CASES = [
    ("llama3-tokens.json", "llama3/tokenizer.model", ["special", "plain"]),
    ("mistral-v0.3-tokens.json", "mistral-v0.3/tokenizer.model", ["plain"]),
]


def encode(tokenizer, texts, mode):
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(texts, file)
        file.flush()
        run = subprocess.run([os.environ["TOKENS"], tokenizer, file.name, mode], capture_output=True, text=True)
    if run.returncode:
        sys.exit(run.stderr)
    return json.loads(run.stdout)


def main():
    folder = os.environ.get("ZSIGMA_TOKENIZERS")
    if not folder:
        print("SKIP: the real tokenizers are not there; run tools/get_tokenizers.sh FOLDER and set ZSIGMA_TOKENIZERS to FOLDER")
        return 77
    wrong = 0
    for golden, tokenizer, modes in CASES:
        with open(os.path.join(here, "tokenizers", golden), encoding="utf-8") as file:
            cases = json.load(file)
        for mode in modes:
            ids = encode(os.path.join(folder, tokenizer), [c["text"] for c in cases], mode)
            bad = [(c["text"], i, c[mode]) for c, i in zip(cases, ids) if i != c[mode]]
            for text, got, expected in bad[:5]:
                print(f"{tokenizer} {mode} {text!r}: {got} instead of {expected}")
            print(f"{tokenizer} {mode}: {len(cases) - len(bad)} of {len(cases)} texts have the golden ids")
            wrong += len(bad) + (not cases)
    return 1 if wrong else 0


sys.exit(main())
