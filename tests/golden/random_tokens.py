"""Ids of random texts against the reference libraries: sentencepiece, tiktoken, tokenizers (pip install them; run by hand).

usage: random_tokens.py sentencepiece|tiktoken|tokenizers TOKENIZER [COUNT]     environment: TOKENS (the program tokens.c)
TOKENIZER is a tokenizer.model or tokenizer.json. Texts: all of Unicode, common scripts, blanks, digits, pieces of the
vocabulary itself, spellings of control tokens.
"""
import base64
import json
import os
import random
import subprocess
import sys
import tempfile

LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
RANGES = [(0x20, 0x7e), (0xa0, 0x24f), (0x300, 0x36f), (0x370, 0x52f), (0x590, 0x6ff), (0x900, 0xdff), (0xe00, 0xe7f), (0x1100, 0x11ff),
          (0x1e00, 0x1fff), (0x2000, 0x206f), (0x2070, 0x2bff), (0x3000, 0x30ff), (0x4e00, 0x9fff), (0xac00, 0xd7a3), (0xf900, 0xfaff),
          (0xfb00, 0xffef), (0x1d400, 0x1d7ff), (0x1f300, 0x1faff), (0x2f800, 0x2fa1d), (0xe0000, 0xe01ef)]
BLANKS = " \t\n\r\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0\u1680\u180e\u2000\u2003\u2009\u200a\u200b\u2028\u2029\u202f\u205f\u2060\u3000\ufeff"


class Reference:
    """encode(text, special) by the library, and the vocabulary's pieces as texts."""

    def __init__(self, library, path):
        self.modes = ["plain"]
        if library == "sentencepiece":
            import sentencepiece
            model = sentencepiece.SentencePieceProcessor(model_file=path)
            self.encode = lambda text, special: model.encode(text)
            self.pieces = [model.id_to_piece(i).replace("\u2581", " ") for i in range(model.vocab_size())]
        elif library == "tiktoken":
            import tiktoken
            with open(path, "rb") as file:
                ranks = {base64.b64decode(a): int(b) for a, b in (line.split() for line in file.read().splitlines() if line)}
            names = ["<|begin_of_text|>", "<|end_of_text|>"] + [f"<|reserved_special_token_{i}|>" for i in range(4)]
            names += ["<|start_header_id|>", "<|end_header_id|>", "<|reserved_special_token_4|>", "<|eot_id|>"]
            names += [f"<|reserved_special_token_{i}|>" for i in range(5, 251)]
            model = tiktoken.Encoding("llama3", pat_str=LLAMA3, mergeable_ranks=ranks, special_tokens={t: len(ranks) + i for i, t in enumerate(names)})
            self.encode = lambda text, special: model.encode(text, **({"allowed_special": "all"} if special else {"disallowed_special": ()}))
            self.pieces = [b.decode("utf-8", "ignore") for b in ranks] + names
            self.modes.append("special")
        else:
            import tokenizers
            model = tokenizers.Tokenizer.from_file(path)
            model.no_padding()
            model.no_truncation()
            self.encode = lambda text, special: model.encode(text, add_special_tokens=False).ids
            self.pieces = [model.decode([i], skip_special_tokens=False) for i in range(model.get_vocab_size())]
            self.modes = ["special"]


def make_text(rng, pieces):
    kind = rng.randrange(8)
    length = rng.choice([1, 2, 3, 5, 8, 13, 30, 80])
    if kind == 0:
        points = (rng.choice([rng.randrange(0xd800), rng.randrange(0xe000, 0x110000)]) for _ in range(length))
        return "".join(map(chr, points))
    if kind == 1:
        low, high = rng.choice(RANGES)
        return "".join(chr(rng.randint(low, high)) for _ in range(length))
    if kind == 2:
        return "".join(chr(rng.randint(*rng.choice(RANGES))) for _ in range(length))
    if kind == 3:
        return "".join(rng.choice(BLANKS + "a1.\u00e9") for _ in range(length))
    if kind == 4:
        return "".join(rng.choice("0123456789,.'sStT lLdDrReE\n ") for _ in range(length))
    if kind == 5:
        return "".join(rng.choice(pieces) for _ in range(length))
    if kind == 6:
        return rng.choice(pieces) * length
    return "".join(rng.choice([" ", "  ", "'s", "\n", rng.choice(pieces), chr(rng.randint(*rng.choice(RANGES)))]) for _ in range(length))


def main():
    library, path = sys.argv[1:3]
    count = int(sys.argv[3]) if len(sys.argv) > 3 else 20000
    reference = Reference(library, path)
    rng = random.Random(20000)
    texts = [make_text(rng, reference.pieces) for _ in range(count)]
    wrong = 0
    for mode in reference.modes:
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump(texts, file)
            file.flush()
            run = subprocess.run([os.environ["TOKENS"], path, file.name, mode], capture_output=True, text=True)
        if run.returncode:
            sys.exit(run.stderr)
        bad = tokens = 0
        for text, ids in zip(texts, json.loads(run.stdout)):
            expected = reference.encode(text, mode == "special")
            tokens += len(expected)
            if ids != expected:
                bad += 1
                if bad <= 5:
                    print(f"{text!r}: {ids} instead of {expected}")
        print(f"{path} {mode}: {count - bad} of {count} texts have {library}'s ids ({tokens} of them)")
        wrong += bad
    return 1 if wrong else 0


sys.exit(main())
