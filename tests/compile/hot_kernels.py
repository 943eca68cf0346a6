"""The kernels that a Llama-3-8B's time goes to, as AMD's compiler makes them for four cards: the table of tests/bench/README.md.

usage: hot_kernels.py BUILD/tests/test_compile

Decode is batch 1, from f16, q8_0 and q4_0 weights; prefill and attention as runtime/ops chooses them. Where a card's kernels differ in
the subgroup's size, the name is followed by whatever the card has.
"""

import os
import re
import subprocess
import sys

FAMILIES = ["vega20", "navi21", "navi31", "gfx1201"]
HOT = [
    ("decode, f16", r"matvec_f16 subgroup \d+ \d+,1,\d+,\d+,1,0,1,\d+ "),
    ("decode, q8_0", r"matvec_q8 subgroup \d+ \d+,1,\d+,\d+,1,0,1,\d+ "),
    ("decode, q4_0", r"matvec_q4 subgroup \d+ \d+,1,\d+,\d+,1,0,1,\d+ "),
    ("decode, gate · up, q4_0", r"matvec_q4 subgroup \d+ \d+,1,\d+,\d+,1,(4|12),2"),
    ("decode, q4_0, integers", r"matvec_q4_dot subgroup \d+ \d+,1,\d+,\d+,1,0,1,\d+ "),
    ("decode, gate · up, q4_0, integers", r"matvec_q4_dot subgroup \d+ \d+,1,\d+,\d+,1,(4|12),2"),
    ("decode, q8_0, integers", r"matvec_q8_dot subgroup \d+ \d+,1,\d+,\d+,1,0,1,\d+ "),
    ("decode, attention", r"attention_decode_f16 subgroup \d+ 128,128,4,4,"),
    ("sampling", r"sample "),
    ("prefill, f16", r"matmul_f16 128,1,(0|2),1 "),
    ("prefill, q4_0", r"matmul_q4 128,1,(0|2),1 "),
    ("prefill on matrix units, f16", r"matmul_matrix_f16 .*,1,2,1,\d+,16,16,16,128,\d+,128,\d+ "),
    ("prefill on matrix units, q4_0", r"matmul_matrix_q4 .*,1,2,1,\d+,16,16,16,128,\d+,128,\d+ "),
    ("64 rows on matrix units, q8_0", r"matmul_matrix_q8 .*,1,2,1,\d+,16,16,16,64,\d+,64,\d+ "),
    ("composing on matrix units, q8_0", r"matmul_back_matrix_q8 .*,16,16,16,128,\d+,128,1 "),
    ("prefill, attention on matrix units", r"attention_matrix_f16 subgroup \d+ \d+,128,4,"),
    ("prefill, attention", r"attention_tiles_f16 128,128,4,16,4 "),
]
COLUMNS = 9  # VGPRs SGPRs spilled scratch LDS code waves latency 1/through


def kernels(program, family):
    """Name with constants → the nine figures."""
    environment = dict(os.environ, RADV_FORCE_FAMILY=family)
    text = subprocess.run([program], env=environment, capture_output=True, text=True, check=False).stdout
    rows = (line.split() for line in text.splitlines())
    return {" ".join(row[:-COLUMNS]) + " ": row[-COLUMNS:] for row in rows if len(row) > COLUMNS and re.fullmatch(r"\d+", row[-1])}


def cell(found, pattern):
    rows = [figures for name, figures in found.items() if re.match(pattern, name)]
    if not rows:
        return "–"
    vgprs, _, spilled, _, lds, _, waves, latency, throughput = rows[0]
    assert spilled == "0"
    return f"{vgprs} / {int(lds) / 1024:.1f} / {waves} / {int(latency) / 1000:.0f} / {int(throughput) / 1000:.1f}"


def main():
    cards = [kernels(sys.argv[1], family) for family in FAMILIES]
    print("| | " + " | ".join(FAMILIES) + " |")
    print("|---" * (1 + len(FAMILIES)) + "|")
    for label, pattern in HOT:
        print(f"| {label} | " + " | ".join(cell(found, pattern) for found in cards) + " |")


main()
