"""Ids under random small SentencePiece vocabularies (ties, unused and user-defined pieces, with and without bytes and a space
in front) against the sentencepiece library. Run by hand.

usage: random_vocabularies.py [ROUNDS]     environment: TOKENS (the program tokens.c)
"""
import json
import os
import random
import struct
import subprocess
import sys
import tempfile

import sentencepiece

NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = range(1, 7)


def varint(value):
    out = b""
    while value >= 0x80:
        out += bytes([value & 0x7f | 0x80])
        value >>= 7
    return out + bytes([value])


def field(number, value):
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def make_model(rng):
    words = {"".join(rng.choice("ab\u2581\u00e9") for _ in range(rng.randint(2, 5))) for _ in range(rng.randint(4, 40))}
    words |= {c for c in "ab\u2581\u00e9" if rng.random() < 0.8}
    types = rng.choice([[NORMAL], [NORMAL, NORMAL, UNUSED], [NORMAL, NORMAL, NORMAL, UNUSED, USER]])
    pieces = [("<unk>", 0.0, UNKNOWN), ("<s>", 0.0, CONTROL), ("</s>", 0.0, CONTROL)]
    has_bytes, prefix = rng.random() < 0.5, rng.random() < 0.5 and USER not in types
    if has_bytes:
        pieces += [(f"<0x{b:02X}>", 0.0, BYTE) for b in range(256)]
    pieces += [(w, float(rng.randint(-8, 0)), rng.choice(types)) for w in sorted(words)]
    model = b"".join(field(1, field(1, p.encode()) + field(2, s) + field(3, t)) for p, s, t in pieces)
    model += field(2, field(3, 2) + field(35, int(has_bytes)))
    return model + field(3, field(1, b"identity") + field(3, int(prefix)) + field(4, 0) + field(5, 1))


def main():
    rounds, wrong, total = int(sys.argv[1]) if len(sys.argv) > 1 else 300, 0, 0
    rng = random.Random(1)
    with tempfile.TemporaryDirectory() as folder:
        model, texts_file = os.path.join(folder, "m.model"), os.path.join(folder, "texts.json")
        for _ in range(rounds):
            with open(model, "wb") as file:
                file.write(make_model(rng))
            texts = ["".join(rng.choice("aabb \u00e9z\u4e2d") for _ in range(rng.randint(1, 30))) for _ in range(50)]
            with open(texts_file, "w") as file:
                json.dump(texts, file)
            run = subprocess.run([os.environ["TOKENS"], model, texts_file, "plain"], capture_output=True, text=True)
            if run.returncode:
                sys.exit(run.stderr)
            library = sentencepiece.SentencePieceProcessor(model_file=model)
            for text, ids in zip(texts, json.loads(run.stdout)):
                total += 1
                if ids != library.encode(text):
                    wrong += 1
                    if wrong <= 5:
                        print(f"{text!r}: {[library.id_to_piece(i) for i in ids]} instead of {library.encode_as_pieces(text)}")
    print(f"{total - wrong} of {total} texts have sentencepiece's ids")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
