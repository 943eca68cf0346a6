"""The starter experts' validation accuracy, by tests/golden/experts.c (280 questions twice; many minutes on a CPU)."""
import os
import subprocess

import program


class Accuracy(program.RealTest):
    def test_within_two_questions_of_what_was_measured(self):
        folder = os.path.join(program.SOURCE, "tests", "golden", "experts")
        golden = os.environ.get("ZSIGMA_GOLDEN_EXPERTS", os.path.join(program.SOURCE, "build", "tests", "golden_experts"))
        self.assertEqual(subprocess.run([golden, self.factored, folder]).returncode, 0)


if __name__ == "__main__":
    program.main()
