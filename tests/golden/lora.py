"""Makes tests/golden/lora: a LoRA of the tests' tiny model as PEFT saves it, with shares and z by numpy in double precision.

    lora.py TINY_FOLDER        (build/test-output/e2e/tiny-folder; by hand, with torch, transformers, peft and numpy)
"""
import json
import os
import sys

import numpy
import peft
import torch
from safetensors.torch import load_file
from transformers import LlamaForCausalLM

OUTPUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "lora")
PREFIX = "base_model.model."
RANK, ALPHA = 2, 3


def make_adapter(folder):
    """Random A and B; gives the base's weights by name."""
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    config = peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=["q_proj", "k_proj", "down_proj"], use_rslora=True, task_type="CAUSAL_LM")
    adapted = peft.get_peft_model(model, config)
    torch.manual_seed(1)
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            parameter.data = 0.1 * torch.randn_like(parameter)
    adapted.peft_config["default"].base_model_name_or_path = "tiny"
    adapted.save_pretrained(OUTPUT)
    os.remove(os.path.join(OUTPUT, "README.md"))
    return weights


def project(weight, change):
    """(z, ‖diag(Uᵀ ΔW V)‖², ‖ΔW‖²)"""
    u, sigma, vt = numpy.linalg.svd(weight, full_matrices=False)
    along = numpy.einsum("ik,ij,kj->k", u, change, vt)
    return 1 + along / sigma, (along ** 2).sum(), (change ** 2).sum()


def main():
    weights = make_adapter(sys.argv[1])
    adapter = load_file(os.path.join(OUTPUT, "adapter_model.safetensors"))
    expected, said, changed = {}, 0, 0
    for name in sorted({key[len(PREFIX):key.index(".lora_")] for key in adapter}):
        a, b = (adapter[f"{PREFIX}{name}.lora_{part}.weight"].double().numpy() for part in "AB")
        z, part_said, part_changed = project(weights[name + ".weight"].double().numpy(), ALPHA / RANK ** 0.5 * (b @ a))
        expected[name] = {"share": part_said / part_changed, "z": [round(float(value), 7) for value in z]}
        said, changed = said + part_said, changed + part_changed
    with open(os.path.join(OUTPUT, "expected.json"), "w", encoding="utf-8") as file:
        json.dump({"share": said / changed, "matrices": expected}, file, indent=1)
        file.write("\n")


main()
