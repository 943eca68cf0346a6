"""The gradient of a data file: what is written, which lines are left out, what is refused."""
import json
import os
import unittest

import expert_files
import program

LINES = [
    {"id": "a", "prompt": "hello", "answer": "the end"},
    {"id": 2, "messages": [{"role": "system", "content": "in short"}, {"role": "user", "content": "and on"}], "answer": "on"},
]


class Gradient(program.TinyTest):
    def data(self, *lines):
        return self.write("lines.jsonl", "".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines))

    def train(self, data, *more, model=None):
        return ["train", "-m", model or self.factored, "--task", "sft", "--data", data, "--dump-gradient", self.path("gradient.safetensors"), *more]

    def gradient(self):
        with open(self.path("gradient.safetensors"), "rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(size))
            data = file.read()
        return header, data

    def test_tensors_are_named_as_in_experts(self):
        report = self.ok_json(*self.train(self.data(*LINES)))
        self.assertEqual((report["lines"], report["left_out"]), (2, 0))
        header, data = self.gradient()
        self.assertEqual(header.pop("__metadata__")["format"], "zsigma-gradient")
        names = {f"model.layers.{i}.{name}.z" for i in range(2)
                 for name in ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"]}
        self.assertEqual(set(header), names)
        self.assertEqual(header["model.layers.1.self_attn.k_proj.z"]["shape"], [32])
        self.assertNotEqual(data, bytes(len(data)))

    def test_the_sum_is_what_score_says(self):
        for line in LINES[:1]:
            report = self.ok_json(*self.train(self.data(line), "--force"))
            scored = self.ok_json("score", "-m", self.factored, "--prompt", line["prompt"], "--answer", line["answer"], "--precision", "exact")
            self.assertAlmostEqual(report["logprob"], scored["sum"], places=3)
            self.assertEqual(report["answer_tokens"], len(scored["tokens"]))

    def test_malformed_lines_are_told_and_counted(self):
        result = self.ok(*self.train(self.data(LINES[0], "nonsense\n", "\n", {"prompt": "a"}, {"prompt": "x " * 400, "answer": "y"}), "--json"))
        report = json.loads(result.out)
        self.assertEqual((report["lines"], report["left_out"]), (1, 3))
        self.assertIn("lines.jsonl, line 2 is left out: no JSON", result.err)
        self.assertIn("line 4 is left out: \"answer\" is missing", result.err)
        self.assertIn("line 5 is left out: prompt and answer have", result.err)
        alone = self.ok_json(*self.train(self.data(LINES[0]), "--force"))
        self.assertEqual(alone["logprob"], report["logprob"])

    def test_nothing_to_use(self):
        self.refused(1, "has no line that can be used", by=self.train(self.data("nonsense\n")))
        self.refused(1, "has no line that can be used", by=self.train(self.data("")))
        self.refused(1, "No such file", by=self.train(self.path("none.jsonl")))
        self.assertFalse(os.path.exists(self.path("gradient.safetensors")))

    def test_many_malformed_lines(self):
        result = self.refused(1, "50 lines are left out in all", by=self.train(self.data(*["nonsense\n"] * 50)))
        self.assertEqual(result.err.count("is left out:"), 20)

    def test_experts(self):
        base = self.ok_json(*self.train(self.data(*LINES)))
        first = self.gradient()[1]
        expert = expert_files.tiny(self.folder, "other")
        under = self.ok_json(*self.train(self.data(*LINES), "--force", "--expert", expert))
        self.assertNotEqual(base["logprob"], under["logprob"])
        self.assertNotEqual(first, self.gradient()[1])
        self.refused(1, "No such file", by=self.train(self.data(*LINES), "--force", "--expert", self.path("none.safetensors")))

    def test_an_output_that_exists_is_kept(self):
        self.write("gradient.safetensors", "mine")
        self.refused(1, "exists: choose another name or give --force", by=self.train(self.data(*LINES)))
        with open(self.path("gradient.safetensors"), encoding="utf-8") as file:
            self.assertEqual(file.read(), "mine")

    def test_dense_models_have_no_z(self):
        self.refused(1, "zsigma factor", by=self.train(self.data(*LINES), model=self.dense))


class Usage(program.ProgramTest):
    def test_wrong_use(self):
        whole = ["train", "-m", "m", "--task", "sft", "--data", "d", "--dump-gradient", "g"]
        for by, message in [(whole[:1] + whole[3:], "which model?"), (whole[:5] + whole[7:], "which data?"), (whole[:7], "give --dump-gradient"),
                            (whole[:3] + whole[5:], "--task is sft"), (whole[:4] + ["classify"] + whole[5:], "--task is sft"), (whole + ["more"], "given by --data"),
                            (whole + ["--precision", "fast"], "precision exact"), (whole + ["--kv", "f16"], "precision exact")]:
            self.refused(2, message, by=by)


if __name__ == "__main__":
    program.main()
