"""zsigma adapt on the tiny model: a mix that other commands read, going on after an interruption, what is refused."""
import json
import os
import unittest

import expert_files
import program

EXAMPLES = [{"prompt": text, "answer": "the end"} for text in ["hello", "and on", "what is it", "system"]]


class Adapt(program.TinyTest):
    def setUp(self):
        super().setUp()
        self.experts = self.path("experts")
        expert_files.tiny(self.experts, "math", seed=1)
        expert_files.tiny(self.experts, "code", seed=2)

    def examples(self, *lines):
        return self.write("examples.jsonl", "".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines or EXAMPLES))

    def adapt(self, *more, examples=None, output="mix.safetensors"):
        return ["adapt", "-m", self.factored, "--experts", self.experts, "--examples", examples or self.examples(), "-o", self.path(output), "-n", "4",
                "--population", "6", "--iterations", "3", *more]

    def bytes(self, name="mix.safetensors"):
        with open(self.path(name), "rb") as file:
            return file.read()

    def logprob(self, examples, *more):
        scored = [self.ok_json("score", "-m", self.factored, "--prompt", e["prompt"], "--answer", e["answer"], *more) for e in examples]
        return sum(s["sum"] for s in scored) / sum(len(s["tokens"]) for s in scored)

    def test_mix(self):
        report = self.ok_json(*self.adapt())
        self.assertEqual((report["iterations"], report["examples"], report["held_out"]), (3, 4, 0))
        self.assertEqual(set(report["alpha"]), {"math", "code"})
        self.assertTrue(all(0 <= a <= 1 for a in report["alpha"].values()))
        self.assertGreater(report["decode_tokens"], 0)
        self.assertFalse(os.path.exists(self.path("mix.safetensors.search.json")))
        # The figure is what scoring the examples under the file gives.
        self.assertAlmostEqual(report["logprob"], self.logprob(EXAMPLES, "--expert", self.path("mix.safetensors")), places=4)
        self.assertEqual(self.ok_json("ask", "-m", self.factored, "-n", "2", "hello", "--expert", self.path("mix.safetensors"))["expert"], "mix")

    def test_more_iterations_are_no_worse(self):
        few = self.ok_json(*self.adapt("--iterations", "1", output="few.safetensors"))
        many = self.ok_json(*self.adapt("--iterations", "6", output="many.safetensors"))
        self.assertGreater(many["logprob"], few["logprob"])

    def test_ends_when_no_other_mix_is_left(self):
        report = self.ok_json(*self.adapt("--population", "3", "--iterations", "200"))
        self.assertTrue(report["converged"])
        self.assertLess(report["iterations"], 200)
        self.assertFalse(os.path.exists(self.path("mix.safetensors.search.json")))

    def test_seed(self):
        self.ok(*self.adapt("--quiet", output="a.safetensors"))
        self.ok(*self.adapt("--quiet", output="b.safetensors"))
        self.ok(*self.adapt("--quiet", "--seed", "3", output="c.safetensors"))
        self.assertEqual(self.bytes("a.safetensors"), self.bytes("b.safetensors"))
        self.assertNotEqual(self.bytes("a.safetensors"), self.bytes("c.safetensors"))

    def test_goes_on_where_it_was_interrupted(self):
        score = self.path("score")
        def command(limit):
            return ["--reward-command", f"echo x >> {score}; test $(wc -l < {score}) -lt $(cat {self.path('limit')}) && echo 0"]
        self.write("limit", "1000000")
        self.ok(*self.adapt(*command(0), output="whole.safetensors"))
        os.remove(score)
        self.write("limit", "40")  # of 6 · 4 answers an iteration
        self.refused(1, "the reward command failed", by=self.adapt(*command(0), output="part.safetensors"))
        self.assertTrue(os.path.exists(self.path("part.safetensors.search.json")))
        self.assertFalse(os.path.exists(self.path("part.safetensors")))
        self.write("limit", "1000000")
        self.refused(1, "seed was 0 and is 1", by=self.adapt(*command(0), "--seed", "1", output="part.safetensors"))
        result = self.ok(*self.adapt(*command(0), output="part.safetensors"))
        self.assertIn("going on from iteration 1", result.err)
        self.assertIn("; the base model: 0.0 % of them (", result.out)
        self.assertIn("no mix that was found gets more examples right", result.err)
        self.assertEqual(self.bytes("part.safetensors"), self.bytes("whole.safetensors"))
        self.write("bad.safetensors.search.json", "{")
        self.refused(1, "is damaged", by=self.adapt(output="bad.safetensors"))

    def test_per_matrix_and_held_out(self):
        report = self.ok_json(*self.adapt("--per-matrix", "--held-out", "1"))
        self.assertEqual((report["examples"], report["held_out"]), (3, 1))
        self.assertIsNotNone(report["held_out_accuracy"])
        self.assertAlmostEqual(report["base_logprob"], self.logprob(EXAMPLES[-1:]), places=4)
        shown = self.ok_json("score", "-m", self.factored, "--prompt", "hello", "--answer", "x", "--expert", self.path("mix.safetensors"))
        self.assertLess(shown["sum"], 0)

    def test_refused(self):
        self.refused(1, "at least 2 are needed", by=self.adapt(examples=self.examples(EXAMPLES[0])))
        self.refused(1, "fewer than the 4 examples", by=self.adapt("--held-out", "4"))
        self.refused(1, "fewer than the 4 examples", by=self.adapt("--held-out", "x"))
        self.write("mix.safetensors", "mine")
        self.refused(1, "exists: choose another name or give --force", by=self.adapt())
        result = self.ok(*self.adapt("--force", "--json", examples=self.examples(*EXAMPLES, "nonsense\n")))
        self.assertEqual(json.loads(result.out)["left_out"], 1)
        self.assertIn("line 5 is left out: no JSON", result.err)


class Images(program.TinyTest):
    EXAMPLES = [{"prompt": "what is it?", "answer": "a line", "image": "97x41.png"}, {"prompt": "what is it?", "answer": "a square", "image": "56x56.png"},
                {"prompt": "hello", "answer": "the end"}]

    def setUp(self):
        super().setUp()
        self.vision = os.path.join(program.SOURCE, "tests", "golden", "vision")
        self.model = self.path("llava.gguf")
        self.ok("factor", os.path.join(self.vision, "llava-1.5"), "-o", self.model, "--quiet")
        self.examples = self.write("examples.jsonl", "".join(json.dumps(line) + "\n" for line in self.EXAMPLES))

    def options(self, model=None):
        return ["-m", model or self.model, "--chat-template", "chatml", "--images", os.path.join(self.vision, "images")]

    def make_experts(self):
        os.makedirs(self.path("experts"))
        for number, name in enumerate(["one", "two"]):
            data = self.write(name + ".jsonl", json.dumps(self.EXAMPLES[number]) + "\n")
            self.ok("train", *self.options(), "--task", "sft", "--data", data, "--batch", "1", "--steps", "3", "--rate", "0.05", "-o", self.path(f"experts/{name}.safetensors"))

    def logprob(self):
        total = tokens = 0
        for example in self.EXAMPLES:
            head = "<image>\n" if "image" in example else ""
            picture = ["--image", os.path.join(self.vision, "images", example["image"])] if head else []
            scored = self.ok_json("score", "-m", self.model, "--raw", "--precision", "exact", "--answer", example["answer"], *picture,
                                  "--prompt", f"<|im_start|>user\n{head}{example['prompt']}<|im_end|>\n<|im_start|>assistant\n")
            total += scored["sum"]
            tokens += len(scored["tokens"])
        return total / tokens

    def test_examples_about_pictures(self):
        self.make_experts()
        adapt = ["adapt", *self.options(), "--experts", self.path("experts"), "--examples", self.examples, "-n", "3", "--population", "4", "--iterations", "2",
                 "--precision", "exact", "-o", self.path("mix.safetensors")]
        report = self.ok_json(*adapt)
        self.assertEqual((report["iterations"], set(report["alpha"])), (2, {"one", "two"}))
        self.assertAlmostEqual(report["base_logprob"], self.logprob(), places=3)
        self.assertGreater(report["logprob"], report["base_logprob"])

    def test_refused(self):
        expert_files.tiny(self.path("tiny"), "math")
        adapt = ["adapt", "--experts", self.path("tiny"), "-o", self.path("mix.safetensors")]
        self.refused(1, "line 1 is about an image, and this model has no image tower", by=[*adapt, *self.options(self.factored), "--examples", self.examples])
        lost = self.write("lost.jsonl", json.dumps(self.EXAMPLES[2]) + "\n" + json.dumps({**self.EXAMPLES[0], "image": "no.png"}) + "\n")
        self.refused(1, "line 2: ", "no.png: No such file", by=[*adapt, *self.options(), "--examples", lost])


class Usage(program.ProgramTest):
    def test_wrong_use(self):
        whole = ["adapt", "-m", "m", "--experts", "e", "--examples", "d", "-o", "o"]
        for by, message in [(whole[:1] + whole[3:], "which model?"), (whole[:3] + whole[5:], "which experts?"), (whole[:5] + whole[7:], "which examples?"),
                            (whole[:7], "where to?"), (whole + ["--task", "gsm"], "no such task"), (whole + ["--population", "2"], "from 3 to"), (whole + ["more"], "given by --examples")]:
            self.refused(2, message, by=by)


if __name__ == "__main__":
    program.main()
