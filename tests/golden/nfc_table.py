"""Makes loader/nfc_table.h from Python's unicodedata, and golden/nfc.json, with which the unit test compares. Run by hand.

usage: nfc_table.py > ../../loader/nfc_table.h     (in this folder)
"""
import json
import random
import unicodedata


def rows(name, fields, entries):
    print(f"static const {fields} {name}[] = {{")
    line = ""
    for entry in entries:
        text = "{" + ", ".join(f"{v:#x}" for v in entry) + "},"
        if len(line) + len(text) > 136:
            print("   " + line)
            line = ""
        line += " " + text
    print("   " + line + "\n};")


decompositions, compositions, classes = [], [], []
for point in range(0x110000):
    parts = unicodedata.decomposition(chr(point))
    if parts and not parts.startswith("<"):
        first, *second = [int(p, 16) for p in parts.split()]
        decompositions.append((point, first, second[0] if second else 0))
        if second and unicodedata.normalize("NFC", chr(first) + chr(second[0])) == chr(point):
            compositions.append((first, second[0], point))
    rank = unicodedata.combining(chr(point))
    if rank:
        if classes and classes[-1][1] == point - 1 and classes[-1][2] == rank:
            classes[-1][1] = point
        else:
            classes.append([point, point, rank])
print(f"// Made by tests/golden/nfc_table.py from the Unicode character database {unicodedata.unidata_version}. Hangul is computed.")
print("// clang-format off")
rows("decompositions", "nfc_triple", decompositions)
rows("compositions", "nfc_triple", sorted(compositions))
rows("classes", "nfc_triple", classes)
print("// clang-format on")

rng = random.Random(3)
marks = [c for first, last, _ in classes for c in range(first, last + 1)]
letters = [p for p, _, _ in decompositions] + [f for f, _, _ in compositions] + list(range(0x1100, 0x11ff)) + list(range(0xac00, 0xac40)) + [0x20, 0x61]
texts = [chr(p) for p, _, _ in decompositions]
texts += ["".join(chr(rng.choice(marks if rng.random() < 0.5 else letters)) for _ in range(rng.randint(1, 40))) for _ in range(500)]
texts += ["a" + "".join(chr(rng.choice(marks)) for _ in range(300)), "\u1100\u1161\u11a8\u11a8", "\uac00\u11a8", "\uac01\u11a8", "\u1100\u1100\u1161"]
with open("nfc.json", "w") as file:
    json.dump([[t, unicodedata.normalize("NFC", t)] for t in texts], file, separators=(",", ":"))
