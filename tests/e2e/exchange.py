"""zsigma expert import, export and project: files as the paper's authors' code writes them (tests/golden/torch_files.py made the fixtures)."""
import json
import math
import os
import xml.etree.ElementTree

import expert_files
import program

TORCH = os.path.join(program.SOURCE, "tests", "golden", "torch")
MLP = {kind: rank for kind, rank in expert_files.RANKS.items() if kind.startswith("mlp")}


class Exchange(program.TinyTest):
    def make(self, name, **options):
        """An expert of the MLP's matrices with z in 0.75 … 1.25."""
        return expert_files.tiny(self.folder, name, ranks=MLP, spread=0.25, **options)

    def show(self, file):
        return self.ok_json("expert", "show", file)

    def score(self, expert):
        return self.ok_json("score", "-m", self.factored, "--expert", expert, "--prompt", "Hello", "--answer", " there, world")["logprobs"]

    def test_import(self):
        for name in ["policy_params", "learnable_params", "deflated"]:
            output = self.path(name + ".safetensors")
            done = self.ok("expert", "import", os.path.join(TORCH, name + ".pt"), "-o", output, "--description", "sums")
            self.assertIn("no sketches", done.err)
            about = self.show(output)
            self.assertEqual((about["name"], about["description"], about["parameterisation"], about["normalise"], about["matrices"]), (name, "sums", "sigmoid", "trace", 6))
        same = self.ok_json("expert", "compare", self.path("policy_params.safetensors"), self.path("deflated.safetensors"))
        self.assertEqual((same["shared_matrices"], same["largest_difference"]), (6, 0))

    def test_there_and_back(self):
        """Under trace, z and what its file in the authors' form gives are the same weights: p keeps z but for a factor."""
        expert = self.make("math", normalise="trace")
        for keys, bound in [("names", 1e-4), ("policy", 0.05)]:  # f32: the rounding of p; bf16: 2^-9 of |p| ≤ 1.1 in every z, through 6 matrices
            torch_file, back = self.path(keys + ".pt"), self.path(keys + ".safetensors")
            self.ok("expert", "export", expert, "-o", torch_file, "--keys", keys)
            self.ok("expert", "import", torch_file, "-o", back, "-m", self.factored)
            compared = self.ok_json("expert", "compare", back, expert)
            self.assertEqual(compared["shared_matrices"], len(MLP) * expert_files.LAYERS)
            expected, got = self.score(expert), self.score(back)
            self.assertLess(max(abs(a - b) for a, b in zip(expected, got)), bound, keys)
        self.ok("expert", "import", self.path("names.pt"), "-o", self.path("again.safetensors"), "--like", self.path("policy.safetensors"))
        self.assertTrue(math.isclose(self.ok_json("expert", "compare", self.path("again.safetensors"), back)["base_cosine"], 1, abs_tol=1e-6))

    def test_usual_keys(self):
        """A policy where it holds the matrices, names elsewhere."""
        whole = expert_files.tiny(self.folder, "whole", spread=0.25, normalise="trace")
        self.refused(1, "a policy holds no others", by=["expert", "export", whole, "-o", self.path("a.pt"), "--keys", "policy"])
        for expert, key in [(whole, b"self_attn.q_proj.weight"), (self.make("mlp", normalise="trace"), b"learnable_params_module_list.5")]:
            output = expert.replace(".safetensors", ".pt")
            self.ok("expert", "export", expert, "-o", output)
            with open(output, "rb") as file:
                self.assertIn(key, file.read())

    def test_compare_by_layer(self):
        """Known differences: ± 0.5 in one matrix, none elsewhere; a matrix that only one has is left out."""
        def shift(tensors):
            values = tensors["model.layers.1.mlp.up_proj.z"]
            tensors["model.layers.1.mlp.up_proj.z"] = [z + (0.5 if i % 2 else -0.5) for i, z in enumerate(values)]
            del tensors["model.layers.0.mlp.down_proj.z"]

        first, second, svg = self.make("first"), self.make("second", edit=shift), self.path("z.svg")
        layers = self.ok_json("expert", "compare", first, second, "--svg", svg)["layers"]
        self.assertAlmostEqual(layers["up_proj"][1], 0.5, places=6)
        self.assertEqual((layers["up_proj"][0], layers["gate_proj"], layers["down_proj"]), (0, [0, 0], [None, 0]))
        root = xml.etree.ElementTree.parse(svg).getroot()
        self.assertEqual(len(root.findall(".//{*}rect/{*}title")), 5)
        self.assertIn("layer 1: 0.5000", [title.text for title in root.iter("{http://www.w3.org/2000/svg}title")])
        self.refused(1, "exists", by=["expert", "compare", first, second, "--svg", svg])
        self.assertIn("0.5000", self.ok("expert", "compare", first, second).out)

    def test_project(self):
        """A model merged with an expert gives that expert, by a file and by a folder; what is no fine-tune of the model is refused."""
        expert, tuned, output = self.make("math"), self.path("tuned.gguf"), self.path("back.safetensors")
        self.ok("merge", "-m", self.factored, "--expert", expert, "-o", tuned, "--type", "f32")
        project = ["expert", "project", tuned, "-m", self.factored, "-o", output]
        done = self.ok_json(*project, "--description", "sums")
        self.assertEqual((len(done["matrices"]), done["lora"]), (14, False))
        self.assertAlmostEqual(done["share"], 1, places=5)
        self.assertGreater(done["cosine"], 0.9)
        changed = [m["change"] > 0.01 for m in done["matrices"]]
        self.assertEqual(changed, [".mlp." in m["name"] for m in done["matrices"]])
        self.assertEqual((self.show(output)["name"], self.show(output)["description"]), ("back", "sums"))
        self.assertLess(self.ok_json("expert", "compare", output, expert)["largest_difference"], 1e-3)
        for words in ["model.layers.1.mlp.up_proj", "100.00 %", "14 matrices, cosine of the sketches 0.9"]:
            self.assertIn(words, self.ok(*project, "--force").out)
        self.refused(1, "exists", by=project)
        self.refused(1, "was not made from", by=["expert", "project", self.other, "-m", self.factored, "-o", self.path("other.safetensors")])
        self.refused(2, "which model", by=["expert", "project", tuned, "-o", output])
        self.refused(2, "where to?", by=["expert", "project", tuned, "-m", self.factored])

    def lora(self, **config):
        """A LoRA of one matrix, rank 1, as PEFT saves it."""
        folder, prefix = self.path("lora"), "base_model.model.model.layers.1.mlp.gate_proj.lora_"
        os.makedirs(folder, exist_ok=True)
        expert_files.save(os.path.join(folder, "adapter_model.safetensors"), {prefix + "A.weight": [0.1] * 64, prefix + "B.weight": [0.1] * 96}, {"format": "pt"},
                          {prefix + "A.weight": [1, 64], prefix + "B.weight": [96, 1]})
        with open(os.path.join(folder, "adapter_config.json"), "w", encoding="utf-8") as file:
            json.dump({"peft_type": "LORA", "r": 1, "lora_alpha": 2, "bias": "none", "modules_to_save": None, **config}, file)
        return ["expert", "project", folder, "-m", self.factored, "-o", self.path("lora.safetensors")]

    def test_project_lora(self):
        done = self.ok_json(*self.lora())
        self.assertTrue(done["lora"] and done["cosine"] is None and 0 < done["share"] < 0.5)
        self.assertEqual([m["name"] for m in done["matrices"]], ["model.layers.1.mlp.gate_proj"])
        self.assertIn("cannot be checked", self.ok(*self.lora(), "--force").err)
        self.score(self.path("lora.safetensors"))
        for config in [{"use_dora": True}, {"fan_in_fan_out": True}, {"modules_to_save": ["lm_head"]}]:
            self.refused(1, *config, by=[*self.lora(**config), "--force"])

    def test_refused(self):
        plain, output = self.make("plain"), self.path("out.pt")
        self.refused(1, "normalise none", "--rescale", by=["expert", "export", plain, "-o", output])
        self.ok("expert", "export", plain, "-o", output, "--rescale")
        self.refused(1, "exists", by=["expert", "export", plain, "-o", output, "--rescale"])
        negative = self.make("negative", normalise="trace", edit=lambda t: t["model.layers.1.mlp.up_proj.z"].__setitem__(3, -0.5))
        self.refused(1, "model.layers.1.mlp.up_proj", "-0.5", "element 3", by=["expert", "export", negative, "-o", self.path("n.pt")])
        policy, safe = os.path.join(TORCH, "policy_params.pt"), self.path("out.safetensors")
        self.refused(1, "4 values", "rank 64", by=["expert", "import", policy, "-o", safe, "-m", self.factored])
        self.refused(1, "4 values", "rank 64", by=["expert", "import", policy, "-o", safe, "--like", plain])
        self.refused(1, "torch.nn.modules.linear.Linear", by=["expert", "import", os.path.join(TORCH, "module.pt"), "-o", safe])
        self.refused(1, "no zip archive", by=["expert", "import", plain, "-o", safe])
        self.assertFalse(os.path.exists(safe))
        self.refused(2, "where to?", by=["expert", "import", policy])
        self.refused(2, "policy or names", by=["expert", "export", plain, "-o", output, "--keys", "all"])
        self.refused(2, "give one", by=["expert", "import", policy, "-o", safe, "-m", self.factored, "--like", plain])


if __name__ == "__main__":
    program.main()
