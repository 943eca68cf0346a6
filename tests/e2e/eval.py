"""zsigma eval on the tiny model: tables, going on after an interruption, what is refused, what is told."""
import gzip
import json
import os
import unittest

import expert_files
import program

QUESTIONS = [{"id": f"q{i}", "prompt": text, "answer": "x", "category": kind}
             for i, (text, kind) in enumerate([("hello", "math"), ("and on", "code"), ("the end", "math"), ("what is it", "other"), ("system", "code")])]


class Eval(program.TinyTest):
    def setUp(self):
        super().setUp()
        self.experts = self.path("experts")
        expert_files.tiny(self.experts, "math", seed=1)
        expert_files.tiny(self.experts, "code", seed=2)

    def data(self, *lines, name="questions.jsonl"):
        text = "".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines or QUESTIONS)
        return self.write(name, gzip.compress(text.encode()) if name.endswith(".gz") else text)

    def eval(self, *more, data=None, task="label"):
        return ["eval", "-m", self.factored, "--task", task, "--data", data or self.data(), "--experts", self.experts, "-n", "6", "--temp", "1.5", *more]

    def strategies(self, report):
        return {s["strategy"]: s for s in report["strategies"]}

    def lines(self, name="out"):
        with open(self.path(name + ".results.jsonl"), encoding="utf-8") as file:
            return [json.loads(line) for line in file]

    def test_answers_are_those_of_ask(self):
        self.ok(*self.eval("--strategy", "prompt,fixed", "--expert", "math", "-o", self.path("out"), "--parallel", "2", "--quiet"))
        told = {(line["strategy"], line["question"]): line for line in self.lines() if "answer" in line}
        self.assertEqual(len(told), 3 * len(QUESTIONS))
        ask = ["ask", "-m", self.factored, "-n", "6", "--experts", self.experts]
        greedy = [*self.eval("--strategy", "prompt,fixed", "--expert", "math", "-o", self.path("greedy"))]
        greedy[greedy.index("--temp") + 1] = "0"
        self.ok(*greedy)
        told = {(line["strategy"], line["question"]): line for line in self.lines("greedy") if "answer" in line}
        for i, question in enumerate(QUESTIONS[:3]):
            for name, options in [("none", ["--strategy", "none"]), ("prompt", []), ("fixed:math", ["--strategy", "fixed", "--expert", "math"])]:
                answer = self.ok_json(*ask, *options, question["prompt"])
                self.assertEqual(told[name, i + 1]["answer"], answer["answer"])
                self.assertEqual(told[name, i + 1]["expert"], answer["expert"] or "")

    def test_report(self):
        command = "grep -q '\"id\":\"q[024]\"' && echo 1 || echo 0"
        report = self.ok_json(*self.eval("--strategy", "prompt", "--reward-command", command, "-o", self.path("out")))
        none, prompt = report["strategies"]
        self.assertEqual((none["strategy"], prompt["strategy"]), ("none", "prompt"))
        self.assertEqual((none["right"], none["count"], none["share"]), (3, 5, 0.6))
        self.assertAlmostEqual(none["low"], 0.2307, 4)  # Wilson's interval of 3 in 5
        self.assertAlmostEqual(none["high"], 0.8824, 4)
        self.assertEqual(prompt["against_base"], {"better": 0, "worse": 0, "p": 1})
        self.assertEqual({kind: c["count"] for kind, c in none["categories"].items()}, {"math": 2, "code": 2, "other": 1})
        self.assertEqual(none["categories"]["math"]["right"], 2)
        self.assertEqual(sum(sum(row.values()) for row in prompt["dispatch"].values()), 5)
        self.assertEqual(set(prompt["dispatch"]), {"math", "code", "other"})
        self.assertGreater(prompt["pass1_ms"], 0)
        self.assertLess(none["pass1_ms"], 1)
        with open(self.path("out.json"), encoding="utf-8") as file:
            self.assertEqual(json.load(file), report)
        with open(self.path("out.md"), encoding="utf-8") as file:
            table = file.read()
        self.assertIn("| none | 3 / 5 | 60.00 % | 23.07 – 88.24 |", table)
        self.assertIn("Dispatch by prompt", table)
        self.assertEqual(self.ok(*self.eval("--strategy", "prompt", "--reward-command", command, "-o", self.path("out"))).out, table)

    def test_goes_on_where_it_was_interrupted(self):
        whole = self.eval("--strategy", "prompt", "-o", self.path("whole"))
        self.ok(*whole)
        part = self.eval("--strategy", "prompt", "-o", self.path("part"), "--reward-command", f"test $(cat {self.path('count')} | wc -c) -lt 7 && printf x >> {self.path('count')} && echo 0")
        self.write("count", "")
        self.refused(1, "the reward command failed", by=part)
        done = [line for line in self.lines("part") if "answer" in line]
        self.assertEqual(len(done), 7)
        with open(self.path("part.results.jsonl"), "a", encoding="utf-8") as file:
            file.write('{"strategy": "prompt", "question": 5, "sco')  # the disk was full
        self.write("count", "")
        result = self.ok(*part)
        self.assertIn("none: 5 of 5 answers are there already", result.err)
        self.assertIn("prompt: 2 of 5", result.err)
        lines = [line for line in self.lines("part") if "answer" in line]
        self.assertEqual(lines[:7], done)
        self.assertEqual(sorted((line["strategy"], line["question"], line["answer"]) for line in lines),
                         sorted((line["strategy"], line["question"], line["answer"]) for line in self.lines("whole") if "answer" in line))

    def test_other_settings_are_refused_with_the_difference(self):
        self.ok(*self.eval("-o", self.path("out")))
        self.refused(1, "seed was 0 and is 7", "--force", by=self.eval("-o", self.path("out"), "--seed", "7"))
        self.refused(1, "data was", by=self.eval("-o", self.path("out"), data=self.data(*QUESTIONS[1:], QUESTIONS[0], name="more.jsonl")))
        self.ok(*self.eval("-o", self.path("out"), "--seed", "7", "--force"))
        self.write("else.results.jsonl", "mine\n")
        self.refused(1, "is no results of zsigma eval", by=self.eval("-o", self.path("else")))

    def test_what_else_answers_depend_on(self):
        by = self.eval("--strategy", "none", "-o", self.path("out"))
        self.ok(*by)
        for more, member in [(["--kv", "f16"], "kv"), (["--ctx", "200"], "context"), (["--mode", "composed:q8_0"], "mode"), (["--precision", "fast"], "precision")]:
            self.refused(1, "other settings", member, by=[*by, *more])

    def test_tables_of_others_are_kept(self):
        mine = self.write("mine.md", "mine")
        self.refused(1, "mine.md exists", by=self.eval("--strategy", "none", "-o", self.path("mine")))
        self.assertEqual(open(mine, encoding="utf-8").read(), "mine")
        self.assertFalse(os.path.exists(self.path("mine.results.jsonl")))

    def test_shots_and_instruction(self):
        shots = self.data({"prompt": "one?", "answer": "1"}, {"prompt": "two?", "answer": "2"}, name="shots.jsonl")
        plain, told = (self.ok_json(*self.eval(*more, "--limit", "1"))["strategies"][0]["prefill_tokens"]
                       for more in ([], ["--instruction", "in short", "--shots", shots, "--shot-count", "2"]))
        self.assertGreater(told, plain + 10)
        self.refused(1, "holds 2 examples, and --shot-count is 3", by=self.eval("--shots", shots))
        result = self.ok(*self.eval("--shots", self.data(name="same.jsonl"), "--limit", "2", "--quiet"))
        self.assertIn("2 of the questions are among the solved examples", result.err)

    def test_scored_choices(self):
        """The choice whose text is the likeliest behind the question alone, as zsigma score has it; by characters, another."""
        choices = ["a", "the end of it", "hello, world and on", "system"]
        arc = [{"id": stem, "question": stem, "choices": {"text": choices, "label": list("ABCD")}, "answerKey": "B"} for stem in ["What is it?"]]
        data = self.data(*arc)

        def chosen(form, *more):
            by = self.eval("--answer", form, "-o", self.path(form), *more, data=data, task="arc-easy")
            right = self.ok_json(*by)["strategies"][0]["right"]
            answers = [line["answer"] for line in self.lines(form) if "answer" in line and line["strategy"] == "none"]
            self.assertEqual(right, answers.count("B"))
            return by, answers

        sums = [[self.ok_json("score", "-m", self.factored, "--prompt", question["question"], "--answer", text)["sum"] for text in choices] for question in arc]
        by, answers = chosen("scored")
        self.assertEqual(answers, ["ABCD"[row.index(max(row))] for row in sums])
        means = [[total / len(text) for total, text in zip(row, choices)] for row in sums]
        self.assertEqual(chosen("scored-mean", "--strategy", "prompt")[1], ["ABCD"[row.index(max(row))] for row in means])
        self.assertNotEqual(sums[0].index(max(sums[0])), means[0].index(max(means[0])))  # else nothing is shown
        own = self.data(*({"prompt": question["question"], "choices": choices, "answer": "B"} for question in arc), name="own.jsonl")
        tokens = [self.ok_json(*self.eval("--answer", "scored", data=file, task=task))["strategies"][0]["prefill_tokens"]
                  for file, task in [(data, "arc-easy"), (own, "choice")]]
        self.assertEqual(*tokens)  # the published questions' choices are left out
        by[by.index("scored")] = "letter"
        self.refused(1, "answer_form was", by=by)
        self.refused(2, "label does not have", by=self.eval("--answer", "scored"))
        self.refused(2, "--answer is letter, scored or scored-mean", by=self.eval("--answer", "best"))

    def test_overlap_with_training_data(self):
        train = self.data({"prompt": " hello ", "answer": "1"}, {"prompt": "the  end", "answer": "2"}, name="train.jsonl")
        result = self.ok(*self.eval("--train", train, "--json"))
        self.assertIn("2 of the 5 questions are in the training data", result.err)
        self.assertEqual(json.loads(result.out)["in_training_data"], 2)

    def test_malformed_lines_are_counted(self):
        data = self.data(QUESTIONS[0], "nonsense\n", {"prompt": "a"}, {"prompt": "x " * 400, "answer": "y"}, name="some.jsonl.gz")
        result = self.ok(*self.eval("--json", data=data))
        self.assertEqual((json.loads(result.out)["left_out"], json.loads(result.out)["questions"]), (3, 1))
        for words in ["line 2 is left out: no JSON", "line 3 is left out: \"answer\" is missing", "line 4 is left out: the question has"]:
            self.assertIn(words, result.err)
        self.refused(1, "has no line that can be used", by=self.eval(data=self.data("nonsense\n", name="none.jsonl")))
        self.refused(1, "No such file", by=self.eval(data=self.path("missing.jsonl")))

    def test_images_need_eyes(self):
        data = self.write("questions.json", json.dumps([["what shape?", "circle", 0]]))
        self.refused(1, "this model has no eyes", "--blind", by=self.eval(data=data, task="easy-vqa"))
        self.assertEqual(self.ok_json(*self.eval("--blind", data=data, task="easy-vqa"))["questions"], 1)

    def test_reward_commands_that_fail(self):
        for command, words in [("echo nan", "from 0 to 1"), ("exit 4", "exit status 4"), ("sleep 30", "did not end within 1000 ms")]:
            self.refused(1, words, by=self.eval("--reward-command", command, "--timeout", "1", "--limit", "1"))


class Usage(program.ProgramTest):
    def test_wrong_use(self):
        whole = ["eval", "-m", "m", "--task", "label", "--data", "d"]
        for by, message in [(whole[:1] + whole[3:], "which model?"), (whole[:3] + whole[5:], "which task?"), (whole[:5], "which data?"),
                            (whole[:4] + ["gsm"] + whole[5:], "there is no task gsm; --task is one of gsm8k, math"), (whole + ["more"], "given by --data"),
                            (whole + ["--strategy", "best"], "--strategy is"), (whole + ["--strategy", "prompt"], "needs --experts"),
                            (whole + ["--strategy", "fixed"], "needs --expert NAME")]:
            self.refused(2, message, by=by)


if __name__ == "__main__":
    program.main()
