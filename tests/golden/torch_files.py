"""PyTorch's side of the authors' expert files: makes the fixtures in tests/golden/torch, and checks files that zsigma exported.

    torch_files.py make FOLDER          policy_params.pt, learnable_params.pt, mix.pt, deflated.pt, old.pt and others that are refused
    torch_files.py read FILE.pt ...     torch.load(weights_only=True), printed as JSON: name → [dtype, values]

Run by hand with PyTorch 2.15 (the fixtures are committed); tests/unit/test_loader_torch.c reads them.
"""
import collections
import json
import os
import sys
import zipfile

import torch

KINDS = ["gate_proj", "up_proj", "down_proj"]


def p(index, rank):
    """The same numbers in the unit test: exact in bf16."""
    return torch.tensor([(index * 16 + i - 20) / 32 for i in range(rank)])


def make(folder):
    os.makedirs(folder, exist_ok=True)
    policy = {f"learnable_params_module_list.{i}": torch.nn.Parameter(p(i, 4).to(torch.bfloat16)) for i in range(6)}
    torch.save(policy, f"{folder}/policy_params.pt")
    names = collections.OrderedDict((f"model.layers.{i // 3}.mlp.{KINDS[i % 3]}.weight", torch.nn.Parameter(p(i, 4))) for i in range(6))
    torch.save(names, f"{folder}/learnable_params.pt")
    mix = {"adaptive_weights": torch.tensor([0.5, 0.25])}
    for e in range(2):
        for i in range(3):
            mix[f"weights_{e}_k_model_layers_0_mlp_{KINDS[i]}_weight"] = p(e + i, 4) ** 2 + 0.5
    torch.save(mix, f"{folder}/mix.pt")
    base = torch.arange(24, dtype=torch.float64).reshape(4, 6)
    views = {"a": base[1:, ::2], "b": base.t(), "half": torch.tensor([1.0, -2.0]).half(), "none": torch.zeros(0, 3), "scalar": torch.tensor(7.0)}
    torch.save(views, f"{folder}/views.pt")
    module = torch.nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([[0.25, -4.0]]))
    torch.save(module.state_dict(), f"{folder}/state_dict.pt")
    with zipfile.ZipFile(f"{folder}/policy_params.pt") as stored, zipfile.ZipFile(f"{folder}/deflated.pt", "w", zipfile.ZIP_DEFLATED) as packed:
        for entry in stored.infolist():
            packed.writestr(entry.filename, stored.read(entry), date_time_free(entry))
    torch.save({"a": torch.tensor([1.0])}, f"{folder}/old.pt", _use_new_zipfile_serialization=False)
    torch.save({"a": torch.tensor([1])}, f"{folder}/integers.pt")
    torch.save({"a": 1.5}, f"{folder}/number.pt")
    torch.save(torch.tensor([1.0]), f"{folder}/bare.pt")
    torch.save(module, f"{folder}/module.pt")


def date_time_free(entry):
    """Deflated like the rest, whatever the archive it comes from did."""
    return zipfile.ZIP_DEFLATED


def read(files):
    for file in files:
        tensors = torch.load(file, weights_only=True)
        print(json.dumps({name: [str(t.dtype), t.double().tolist()] for name, t in tensors.items()}))


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(sys.argv[2])
    else:
        read(sys.argv[2:])
