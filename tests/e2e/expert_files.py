"""Expert files for the tiny model (tests/support/tiny_model.h), sound and broken ones, written without the program's help."""
import json
import os
import random
import struct

LAYERS = 2
RANKS = {"self_attn.q_proj": 64, "self_attn.k_proj": 32, "self_attn.v_proj": 32, "self_attn.o_proj": 64,
         "mlp.gate_proj": 64, "mlp.up_proj": 64, "mlp.down_proj": 64}


def save(path, tensors, metadata, shapes=None):
    """safetensors: u64 length, JSON header, data; tensors are lists of numbers, written as F32, vectors unless shapes has their name."""
    header, data = {"__metadata__": metadata}, b""
    for name, values in tensors.items():
        bytes_ = struct.pack(f"<{len(values)}f", *values)
        header[name] = {"dtype": "F32", "shape": (shapes or {}).get(name, [len(values)]), "data_offsets": [len(data), len(data) + len(bytes_)]}
        data += bytes_
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + data)
    return path


def tiny(folder, name, seed=1, spread=0.5, ranks=None, sketch=None, edit=None, **metadata):
    """folder/name.safetensors: z = 1 ± spread on every matrix of the tiny model. sketch: the same 8 numbers everywhere."""
    numbers = random.Random(seed)
    tensors = {}
    for layer in range(LAYERS):
        for kind, rank in (ranks or RANKS).items():
            matrix = f"model.layers.{layer}.{kind}"
            tensors[matrix + ".z"] = [1 + spread * (2 * numbers.random() - 1) for _ in range(rank)]
            if sketch:
                tensors[matrix + ".sketch"] = sketch
    if edit:
        edit(tensors)
    os.makedirs(folder, exist_ok=True)
    about = {"format": "zsigma-expert", "version": "1", "name": name, "description": f"questions of {name}", "base_model": "tiny", **metadata}
    return save(os.path.join(folder, name + ".safetensors"), tensors, about)
