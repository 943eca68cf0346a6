"""The example answer.c (quoted in README.md) against `zsigma ask`: one library, so one answer. ANSWER: the built example."""
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "e2e"))
import expert_files
import program
from program import zsigma

ANSWER = os.environ.get("ANSWER", "")


def answer(*arguments, **changes):
    done = subprocess.run([ANSWER, *arguments], env=program.environment(**changes), capture_output=True, timeout=program.LIMIT_S)
    return program.Result(done.returncode, done.stdout, done.stderr)


class Answer(program.TinyTest):
    def same(self, model, question, folder=None):
        with_experts = [folder] if folder else []
        example = answer(model, question, *with_experts)
        self.assertEqual((example.status, example.err), (0, ""))
        told = zsigma("ask", "-m", model, question, *(["--experts", folder] if folder else []), "--quiet")
        self.assertEqual(told.status, 0, told.err)
        self.assertGreater(len(told.out_bytes), 2)
        self.assertEqual(example.out_bytes, told.out_bytes)
        return example.out_bytes

    def test_dense_and_factored(self):
        self.same(self.dense, "Hello there")
        self.same(self.factored, "Hello there")

    def test_two_passes(self):
        folder = self.path("experts")
        expert_files.tiny(folder, "math", seed=1)
        expert_files.tiny(folder, "code", seed=2)
        self.same(self.factored, "Hello there", folder)

    def test_errors(self):
        self.assertEqual(answer(self.dense).status, 2)
        missing = answer(self.path("none.gguf"), "Hello")
        self.assertEqual((missing.status, missing.out), (1, ""))
        self.assertIn("none.gguf", missing.err)
        empty = answer(self.dense, " ")
        self.assertEqual((empty.status, empty.err), (1, "the question is empty\n"))
        self.assertEqual(answer(self.factored, "Hello", self.path("nowhere")).status, 1)


if __name__ == "__main__":
    program.main()
