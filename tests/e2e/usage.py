"""Help, versions, wrong commands and options: nothing here needs a model or a device."""
import unittest

import program
from program import zsigma

COMMANDS = ["devices", "factor", "ask", "chat", "score", "tokenize", "train", "merge", "expert", "bench"]


class Help(program.ProgramTest):
    def test_overview_names_every_command(self):
        for flag in ["--help", "-h", "help"]:
            out = self.ok(flag).out
            for command in COMMANDS:
                self.assertIn(f"  {command} ", out)

    def test_every_command_has_help_with_an_example(self):
        for command in COMMANDS:
            result = self.ok(command, "--help")
            self.assertEqual(result.err, "")
            self.assertIn(f"usage: zsigma {command}", result.out)
            self.assertRegex(result.out, rf"example:\n  .*zsigma {command}")
            self.assertEqual(self.ok(command, "-h").out, result.out)

    def test_help_lines_are_aligned_and_end_without_spaces(self):
        for command in COMMANDS:
            lines = self.ok(command, "--help").out.split("\n")
            self.assertEqual([line for line in lines if line.endswith(" ")], [])

    def test_help_of_a_command(self):
        self.assertEqual(self.ok("help", "score").out, self.ok("score", "--help").out)
        self.refused(2, "unknown command scor; did you mean score?", by=["help", "scor"])

    def test_version(self):
        self.assertRegex(self.ok("--version").out, r"^zsigma \d+\.\d+\.\d+\n$")


class WrongUse(program.ProgramTest):
    def test_no_command_gives_help_and_status_2(self):
        result = zsigma()
        self.assertEqual(result.status, 2)
        self.assertIn("usage: zsigma COMMAND", result.out)

    def test_unknown_commands(self):
        self.refused(2, "unknown command asc; did you mean ask?", by=["asc"])
        self.refused(2, "unknown command frobnicate (see zsigma --help)", by=["frobnicate"])
        self.refused(2, "options come after the command", by=["--json", "devices"])

    def test_unknown_options(self):
        self.refused(2, "unknown option --exprt; did you mean --expert?", by=["ask", "--exprt", "math", "q"])
        self.refused(2, "unknown option --frobnicate (see zsigma ask --help)", by=["ask", "--frobnicate", "q"])
        self.refused(2, "unknown option -x (see zsigma ask --help)", by=["ask", "-x", "q"])

    def test_values(self):
        for arguments, message in [
            (["--ctx", "many"], "--ctx many: a whole number from 1 to 4294967295 is expected"),
            (["--ctx", "-1"], "a whole number from 1"),
            (["--ctx", "0"], "a whole number from 1"),
            (["--ctx", "99999999999"], "to 4294967295 is expected"),
            (["--top-k", "-1"], "--top-k -1: a whole number below 4294967296 is expected"),
            (["--temp", "hot"], "--temp hot: a number from 0 on is expected"),
            (["--temp", "nan"], "a number from 0 on is expected"),
            (["--ctx"], "--ctx needs a value (N)"),
            (["-n"], "-n needs a value (N)"),
            (["-n", "-3"], "-n -3: a whole number from 1"),
            (["--json=yes"], "--json takes no value"),
            (["--tier", "high"], "--tier high: one of strict, subgroup, storage, half, dot, matrix, matrix2, chain is expected"),
            (["--precision", "low"], "--precision low: one of exact, fast is expected"),
            (["--kv", "f8"], "--kv f8: one of f32, f16, q8_0 is expected"),
            (["--mode", "fancy"], "--mode fancy: one of auto, factored, composed, composed:f16, composed:q8_0, composed:q4_0, dense is expected"),
            (["--mode", "composed:q4_1"], "--mode composed:q4_1: one of auto, factored, composed, composed:f16"),
            (["--mode", "composed:" + "q" * 300], "--mode composed:qqq"),
            (["--strategy", "best"], "--strategy is prompt, classifier, mix, fixed or none"),
            (["--dispatch", "best"], "--dispatch is score or generate"),
            (["--top-p", "2"], "between 0 and 1"),
            (["--seed", "x"], "--seed is a whole number"),
        ]:
            self.refused(2, message, "usage: zsigma ask", by=["ask", "-m", "model.gguf", "question", *arguments])

    def test_missing_and_superfluous_arguments(self):
        for by, message in [
            (["ask", "-m", "model.gguf"], "what is the question?"),
            (["ask", "question"], "which model? give -m FILE"),
            (["ask", "-m", "model.gguf", "What", "is", "this?"], "put it in quotes"),
            (["chat", "-m", "model.gguf", "question"], "standard input"),
            (["chat", "-m", "model.gguf", "--json"], "no --json"),
            (["factor", "-o", "out.gguf"], "one input file is expected"),
            (["factor", "in.gguf"], "where to? give -o OUT.gguf"),
            (["merge", "-o", "out.gguf"], "which model? give -m FILE"),
            (["merge", "-m", "in.gguf"], "where to? give -o OUT.gguf"),
            (["merge", "-m", "in.gguf", "-o", "out.gguf", "--type", "q4_1"], "--type is f16, f32, q8_0 or q4_0"),
            (["factor", "in.gguf", "-o", "out.gguf", "--type", "f8"], "--type is f16, f32 or q8_0"),
            (["factor", "in.gguf", "-o", "out.gguf", "--matrices", "none"], "--matrices is a list of mlp, attention, tower, projector; or all"),
            (["score", "-m", "model.gguf", "--prompt", "x"], "give --prompt and --answer"),
            (["score", "-m", "model.gguf", "--prompt", "", "--answer", "x"], "must not be empty"),
            (["tokenize"], "which model? give -m FILE"),
            (["expert", "show"], "show FILE, compare FILE FILE, import FILE, export FILE or project TUNED is expected"),
            (["devices", "all"], "no arguments are expected"),
        ]:
            self.refused(2, message, "usage: zsigma " + by[0], by=by)

    def test_strategies_tell_what_they_need(self):
        for strategy, message in [("prompt", "needs --experts DIR"), ("classifier", "needs --experts DIR"), ("mix", "needs --experts DIR"),
                                  ("fixed", "needs --expert NAME or FILE")]:
            self.refused(2, message, by=["ask", "-m", "model.gguf", "--strategy", strategy, "q"])
        self.refused(2, "strategy mix needs --alpha", by=["ask", "-m", "model.gguf", "--strategy", "mix", "--experts", "folder", "q"])
        self.refused(2, "--expert goes with strategy fixed", by=["ask", "-m", "model.gguf", "--strategy", "none", "--expert", "math", "q"])

    def test_questions_that_are_none(self):
        self.refused(2, "the question is empty", by=["ask", "-m", "model.gguf", ""])
        self.refused(2, "the question is empty", by=["ask", "-m", "model.gguf", " \n\t"])
        for text, place in [(b"\xff", "byte 0 (0xff)"), (b"caf\xe9", "byte 3 (0xe9)"), ("é".encode() + b"\xc3", "byte 2 (0xc3)"), (b"a\xc0\x80", "byte 1 (0xc0)"),
                            ("\U0001F600".encode() + b"\x80", "byte 4 (0x80)")]:
            self.refused(2, f"the question is not valid UTF-8 at {place}; convert it first", by=["ask", "-m", "model.gguf", text])
            self.refused(2, f"the prompt is not valid UTF-8 at {place}", by=["score", "-m", "model.gguf", "--prompt", text, "--answer", "x"])
            self.refused(2, f"the answer is not valid UTF-8 at {place}", by=["score", "-m", "model.gguf", "--prompt", "x", "--answer", text])
        self.refused(2, "zero bytes", by=["ask", "-m", "model.gguf", "-"], text=b"a\0b")
        self.refused(2, "the question is empty", by=["ask", "-m", "model.gguf", "-"], text=b"")


if __name__ == "__main__":
    program.main()
