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


class Usage(program.ProgramTest):
    def test_wrong_use(self):
        whole = ["adapt", "-m", "m", "--experts", "e", "--examples", "d", "-o", "o"]
        for by, message in [(whole[:1] + whole[3:], "which model?"), (whole[:3] + whole[5:], "which experts?"), (whole[:5] + whole[7:], "which examples?"),
                            (whole[:7], "where to?"), (whole + ["--task", "gsm"], "no such task"), (whole + ["--population", "2"], "from 3 to"), (whole + ["more"], "given by --examples")]:
            self.refused(2, message, by=by)


if __name__ == "__main__":
    program.main()
