"""Makes quantised-types.safetensors: random blocks of GGUF's types, and their values by the gguf package (Python, from llama.cpp).

    pip install gguf numpy safetensors
    python3 quantised_types.py
"""
import os

import gguf
import numpy as np
from safetensors.numpy import save_file

TYPES = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K"]
BLOCKS = {32: 8, 256: 2}


def main():
    random = np.random.default_rng(20261125)
    tensors = {}
    for name in TYPES:
        kind = gguf.GGMLQuantizationType[name]
        elements, size = gguf.GGML_QUANT_SIZES[kind]
        blocks = random.integers(0, 256, (BLOCKS[elements], size), dtype=np.uint8)
        halves = random.uniform(-0.02, 0.02, (len(blocks), 2)).astype(np.float16).view(np.uint8)
        at = size - 2 if name == "Q6_K" else 0  # d; behind it m or dmin
        two = name in ("Q4_1", "Q5_1", "Q4_K", "Q5_K")
        blocks[:, at:at + 2] = halves[:, :2]
        if two:
            blocks[:, 2:4] = halves[:, 2:]
        tensors[name + ".blocks"] = blocks.reshape(-1).view(np.float16)  # bytes; the reader knows no U8
        tensors[name + ".values"] = gguf.dequantize(blocks, kind).astype(np.float32).reshape(-1)
    save_file(tensors, os.path.join(os.path.dirname(os.path.abspath(__file__)), "quantised-types.safetensors"))


main()
