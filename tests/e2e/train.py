"""Training as a user does it, and the gradient of a data file: what is written, which lines are left out, what is refused, what goes on
after an interruption."""
import json
import os
import re
import shutil
import signal
import time
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


def questions(first, count, answer="the end"):
    return "".join(json.dumps({"prompt": f"say {i}", "answer": answer}) + "\n" for i in range(first, first + count))


class Supervised(program.TinyTest):
    def setUp(self):
        super().setUp()
        self.data, self.valid = self.write("data.jsonl", questions(0, 20)), self.write("valid.jsonl", questions(100, 5))
        self.output = self.path("taught.safetensors")

    def train(self, *more, data=None, model=None):
        return ["train", "-m", model or self.factored, "--task", "sft", "--data", data or self.data, "-o", self.output, "--batch", "4", "--steps", "12",
                "--rate", "0.02", *more]

    def log(self):
        with open(self.path("log"), encoding="utf-8") as file:
            return [json.loads(line) for line in file]

    def score(self, *more):
        return self.ok_json("score", "-m", self.factored, "--prompt", "say 100", "--answer", "the end", "--precision", "exact", *more)["sum"]

    def test_it_learns(self):
        report = self.ok_json(*self.train("--valid", self.valid, "--valid-every", "4", "--log", self.path("log"), "--plot", self.path("plot.svg")))
        self.assertGreater(report["best_valid"], report["first_valid"] + 0.5)
        self.assertEqual((report["lines"], report["left_out"], report["step"], report["stopped_early"]), (20, 0, 12, False))
        self.assertGreater(self.score("--expert", self.output), self.score() + 1)
        shown = self.ok_json("expert", "show", self.output)
        self.assertEqual((shown["name"], shown["role"]), ("taught", "expert"))
        log = self.log()
        self.assertEqual([line["step"] for line in log], list(range(13)))
        self.assertEqual([line["step"] for line in log if "valid" in line], [0, 4, 8, 12])
        self.assertAlmostEqual(log[-1]["valid"], report["best_valid"], places=6)
        with open(self.path("plot.svg"), encoding="utf-8") as file:
            plot = file.read()
        self.assertEqual(len(re.findall("<polyline", plot)), 4)
        self.assertTrue(plot.endswith("</svg>\n"))
        self.assertFalse(os.path.exists(self.output + ".checkpoint"))

    def test_forms(self):
        for form in [["--form", "sigmoid"], ["--form", "sigmoid", "--max-mult", "2", "--matrices", "mlp"], ["--matrices", "attention", "--weight-decay", "0.1"]]:
            self.ok(*self.train("--force", "--steps", "3", *form))
            self.ok("score", "-m", self.factored, "--prompt", "a", "--answer", "b", "--expert", self.output)
        self.ok(*self.train("--force", "--steps", "2", "--init", self.output, "--name", "again", "--description", "ends"))
        shown = self.ok_json("expert", "show", self.output)
        self.assertEqual((shown["name"], shown["description"]), ("again", "ends"))
        self.refused(1, "zsigma factor", by=self.train("--force", model=self.dense))

    def interrupted(self, *more):
        """A run that Ctrl-C ends after its third step at the earliest; gives what it said."""
        process = program.start(*self.train("--steps", "4000", "--log", self.path("log"), "--deterministic", *more))
        deadline = time.monotonic() + program.LIMIT_S
        while time.monotonic() < deadline and process.poll() is None:
            if os.path.exists(self.path("log")) and len(self.log_lines()) >= 3:
                break
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        return program.finish(process)

    def log_lines(self):
        with open(self.path("log"), "rb") as file:
            return file.read().splitlines()

    def test_interrupted_and_resumed(self):
        stopped = self.interrupted("--valid", self.valid)
        self.assertEqual(stopped.status, 1, stopped.err)
        self.assertIn("the same command goes on from", stopped.err)
        self.assertFalse(os.path.exists(self.output))
        self.refused(1, "another setting: steps was 4000 and is 12 now", by=self.train("--valid", self.valid, "--deterministic"))
        self.refused(1, "validation data was", by=self.train("--steps", "4000", "--deterministic"))
        with open(self.output + ".checkpoint", "r+b") as file:
            file.truncate(1000)
        self.refused(1, ".checkpoint", by=self.train("--steps", "4000", "--valid", self.valid, "--deterministic"))

    def test_the_same_bits_after_an_interruption(self):
        steps = ["--steps", "60", "--valid", self.valid, "--deterministic", "--log", self.path("log")]
        process = program.start(*self.train(*steps, "--checkpoint-every", "1"))
        while process.poll() is None and not (os.path.exists(self.output + ".checkpoint") and os.path.exists(self.path("log"))):
            time.sleep(0.01)
        process.kill()  # no time to say good-bye
        program.finish(process)
        self.assertFalse(os.path.exists(self.output))
        resumed = self.ok_json(*self.train(*steps, "--checkpoint-every", "1"))
        self.assertTrue(resumed["resumed"])
        self.assertEqual([line["step"] for line in self.log()], list(range(61)))
        with open(self.output, "rb") as file:
            parts = file.read()
        self.ok(*self.train(*steps, "--force"))
        with open(self.output, "rb") as file:
            self.assertEqual(file.read(), parts)

    def test_overlap_is_told(self):
        both = self.write("both.jsonl", questions(18, 4))
        result = self.ok(*self.train("--valid", both, "--steps", "1"))
        self.assertIn("2 of the 4 questions", result.err)

    def test_data(self):
        mixed = self.write("mixed.jsonl", "nonsense\n" + questions(0, 3))
        result = self.ok(*self.train("--steps", "1", "--json", data=mixed))
        self.assertEqual((json.loads(result.out)["lines"], json.loads(result.out)["left_out"]), (3, 1))
        self.assertIn("mixed.jsonl, line 1 is left out", result.err)
        empty = self.write("empty.jsonl", "")
        self.refused(1, "has no line that can be used", by=self.train("--force", data=empty))
        self.refused(1, "has no line that can be used", by=self.train("--force", "--valid", empty))

    def test_files_that_exist_are_kept(self):
        self.write("log", "mine")
        self.refused(1, "log exists", by=self.train("--log", self.path("log")))
        self.write("taught.safetensors", "mine")
        self.refused(1, "exists: choose another name", by=self.train())

    def test_outputs_are_looked_at_before_the_work(self):
        drawing = self.write("drawing.svg", "mine")
        self.refused(1, "drawing.svg exists", by=self.train("--log", self.path("new"), "--plot", drawing))
        self.assertEqual(open(drawing, encoding="utf-8").read(), "mine")
        by = self.train()
        by[by.index("-o") + 1] = self.path("nowhere/taught.safetensors")
        self.refused(1, "taught.safetensors", "nowhere: No such file", by=by)

    def test_terminal(self):
        status, shown = program.on_terminal(*self.train("--valid", self.valid))
        self.assertEqual(status, 0, shown)
        self.assertIn("step 6/12", shown)
        self.assertIn("tokens/s", shown)
        result = self.ok(*self.train("--force"))
        self.assertNotIn("\r", result.err)


class Reinforced(program.TinyTest):
    """Rewarded is what begins with a letter."""

    LETTER = "grep -q '\"answer\": *\"[A-Za-z]' && echo 1 || echo 0"

    def train(self, *more, task="label", data=None):
        data = data or self.write("data.jsonl", questions(0, 6, "1"))  # the command is shown it too
        return ["train", "-m", self.factored, "--task", task, "--data", data, "-o", self.path("drilled.safetensors"), "--batch", "3", "--rollouts", "6",
                "--steps", "5", "--rate", "0.05", "-n", "2", *more]

    def test_it_learns(self):
        valid = self.write("valid.jsonl", questions(50, 4, "1"))
        report = self.ok_json(*self.train("--valid", valid, "--reward-command", self.LETTER, "--kl", "0.01", "--log", self.path("log"), "--plot", self.path("plot.svg")))
        self.assertGreaterEqual(report["best_valid"], report["first_valid"])
        with open(self.path("log"), encoding="utf-8") as file:
            log = [json.loads(line) for line in file]
        self.assertGreater(log[5]["score"], log[1]["score"])
        self.assertAlmostEqual(log[5]["reward"], 2 * log[5]["score"] - 1, places=6)
        self.assertEqual(log[5]["valid_score"], report["best_valid"])
        self.assertEqual((log[5]["answers"], log[5]["failed"]), (18, 0))
        self.assertGreater(log[5]["kl"], 1e-4)
        with open(self.path("plot.svg"), encoding="utf-8") as file:
            self.assertIn("KL divergence", file.read())

    def test_settings(self):
        for more in [["--greedy", "--kl", "0"], ["--preset", "paper", "--steps", "1"], ["--preset", "authors", "--steps", "1"],
                     ["--wrong", "0.1", "--kl-direction", "base-policy", "--deterministic", "--sessions", "2", "--temp", "0.7", "--precision", "fast"]]:
            self.ok(*self.train("--force", "--steps", "1", *more))
            os.remove(self.path("drilled.safetensors"))

    def test_the_authors_form(self):
        self.ok(*self.train("--preset", "authors", "--steps", "1"))
        self.ok("score", "-m", self.factored, "--prompt", "a", "--answer", "b", "--expert", self.path("drilled.safetensors"))
        with open(self.path("drilled.safetensors"), "rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        self.assertEqual((header["__metadata__"]["parameterisation"], header["__metadata__"]["normalise"]), ("sigmoid", "trace"))
        self.assertFalse([name for name in header if "self_attn" in name])

    def test_a_scorer_that_fails(self):
        self.refused(1, "could be scored", by=self.train("--reward-command", "exit 3"))
        self.refused(1, "could be scored", by=self.train("--reward-command", "sleep 60", "--timeout", "1", "--rollouts", "1", "--batch", "1"))
        self.refused(1, "could be scored", by=self.train("--reward-command", "echo nan"))
        self.assertFalse(os.path.exists(self.path("drilled.safetensors")))

    def test_lines_that_a_task_cannot_use(self):
        mixed = self.write("mixed.jsonl", json.dumps({"prompt": "a", "answer": "no number"}) + "\n" + json.dumps({"prompt": "a", "answer": "7"}) + "\n"
                           + json.dumps({"prompt": "x " * 400, "answer": "7"}) + "\n")
        result = self.ok(*self.train("--steps", "1", "--json", task="numeric", data=mixed))
        self.assertEqual(json.loads(result.out)["left_out"], 2)


class Dispatcher(program.TinyTest):
    def setUp(self):
        super().setUp()
        self.experts = self.path("experts")
        os.mkdir(self.experts)
        for seed, name in enumerate(["maths", "codes"]):
            expert_files.tiny(self.experts, name, seed=seed)
        self.data = self.write("labelled.jsonl", "".join(
            json.dumps({"prompt": f"{words} {i}", "answer": name}) + "\n"
            for i in range(8) for words, name in [("how many are", "maths"), ("print(", "codes"), ("hello", "other")]))

    def train(self, *more):
        return ["train", "-m", self.factored, "--task", "classify", "--experts", self.experts, "--data", self.data, "--batch", "6", "--rate", "0.02",
                "-o", os.path.join(self.experts, "dispatcher.safetensors"), *more]

    def believed(self, strategy):
        """Mean probability of the right category, over questions that were not trained on."""
        asked, total = [("how many are 70", "maths"), ("print( 70", "codes"), ("hello 70", "other")], 0
        for question, name in asked:
            answer = self.ok_json("ask", "-m", self.factored, "--experts", self.experts, "--strategy", strategy, "-n", "1", question)
            total += answer["categories"][name] / len(asked)
        return total

    def test_it_is_used(self):
        report = self.ok_json(*self.train("--steps", "40"))
        self.assertEqual(report["lines"], 20)  # of 24: the others are held back
        self.assertGreater(report["best_valid"], report["first_valid"])
        shown = self.ok_json("expert", "show", os.path.join(self.experts, "dispatcher.safetensors"))
        self.assertEqual((shown["name"], shown["role"]), ("dispatcher", "dispatcher"))
        self.assertGreater(self.believed("classifier"), self.believed("prompt") + 0.1)

    def test_labels(self):
        self.data = self.write("labelled.jsonl", "".join(json.dumps({"prompt": "x", "answer": name}) + "\n" for name in ["maths", "cooking"] * 5))
        result = self.ok(*self.train("--steps", "1", "--json"))
        self.assertEqual(json.loads(result.out)["left_out"], 5)
        self.assertIn("'cooking' is no category; codes, maths, other are", result.err)
        self.data = self.write("labelled.jsonl", json.dumps({"prompt": "x", "answer": "maths"}) + "\n")
        self.refused(1, "a fifth for validation", by=self.train("--force"))


class Images(program.TinyTest):
    LINES = [{"prompt": "what is it?", "answer": "a line", "image": "97x41.png"}, {"prompt": "what is it?", "answer": "a square", "image": "56x56.png"},
             {"prompt": "hello", "answer": "the end"}]

    def setUp(self):
        super().setUp()
        vision = os.path.join(program.SOURCE, "tests", "golden", "vision")
        self.model = self.path("llava.gguf")
        self.ok("factor", os.path.join(vision, "llava-1.5"), "-o", self.model, "--quiet")
        os.makedirs(self.path("images"))
        for name in ["97x41.png", "56x56.png"]:
            shutil.copy(os.path.join(vision, "images", name), self.path("images"))

    def train(self, task, data, *more, model=None):
        return ["train", "-m", model or self.model, "--chat-template", "chatml", "--task", task, "--data", data, "-o", self.path("seen.safetensors"), *more]

    def lines(self, lines, name="lines.jsonl"):
        return self.write(name, "".join(json.dumps(line) + "\n" for line in lines))

    def test_answers_about_pictures_are_learnt(self):
        data = self.lines(self.LINES + [{"prompt": "what?", "answer": "none", "image": "no.png"}])
        result = self.ok(*self.train("sft", data, "--images", self.path("images"), "--valid", self.lines(self.LINES[:2], "valid.jsonl"), "--batch", "2",
                                     "--steps", "10", "--rate", "0.03", "--json"))
        report = json.loads(result.out)
        self.assertEqual((report["lines"], report["left_out"]), (3, 1))
        self.assertIn("line 4 is left out", result.err)
        self.assertIn("no.png: No such file", result.err)
        self.assertIn("warning: 2 of the 2 questions for validation", result.err)
        self.assertGreater(report["best_valid"], report["first_valid"] + 0.5)

    def test_towers_and_projectors_learn(self):
        """Where they are factored: with the decoder, or alone; never from text."""
        seeing = self.path("seeing.gguf")
        self.ok("factor", os.path.join(program.SOURCE, "tests", "golden", "vision", "llava-1.5"), "-o", seeing, "--matrices", "all,tower,projector", "--quiet")
        data = self.lines(self.LINES[:2])
        by = ["--images", self.path("images"), "--valid", data, "--batch", "2", "--rate", "0.03", "--json", "--force"]
        self.assertEqual(self.ok_json(*self.train("sft", data, *by, "--steps", "1", model=seeing))["matrices"], 3 * 7 + 3 * 6 + 2)
        report = self.ok_json(*self.train("sft", data, *by, "--steps", "20", "--matrices", "tower,projector", model=seeing))
        self.assertEqual(report["matrices"], 3 * 6 + 2)
        self.assertGreater(report["best_valid"], report["first_valid"] + 0.2)
        asked = ["score", "-m", seeing, "--raw", "--prompt", "<image>what is it?", "--image", os.path.join(self.path("images"), "56x56.png"), "--answer", "a square"]
        self.assertNotEqual(self.ok_json(*asked, "--expert", self.path("seen.safetensors"))["sum"], self.ok_json(*asked)["sum"])
        text = self.train("sft", self.lines(self.LINES[2:], "text.jsonl"), "--force", "--steps", "1", model=seeing)
        self.assertEqual(self.ok_json(*text)["matrices"], 3 * 7)
        self.refused(1, "learn from questions about images", by=[*text, "--matrices", "projector"])
        self.refused(1, "has no factors of the image tower's matrices", by=self.train("sft", data, "--images", self.path("images"), "--matrices", "tower", "--force"))

    def test_the_same_question_about_another_picture_is_another_one(self):
        images = self.path("images")
        result = self.ok(*self.train("sft", self.lines(self.LINES[:1]), "--images", images, "--valid", self.lines(self.LINES[1:2], "valid.jsonl"), "--steps", "1"))
        self.assertNotIn("warning: 1 of the 1", result.err)

    def test_rewarded_answers(self):
        questions = self.write("questions.json", json.dumps([["what shape is present?", "circle", 0], ["is there a red shape?", "yes", 1]]))
        for number, name in enumerate(["97x41.png", "56x56.png"]):
            os.rename(os.path.join(self.path("images"), name), os.path.join(self.path("images"), f"{number}.png"))
        report = self.ok_json(*self.train("easy-vqa", questions, "--batch", "2", "--rollouts", "2", "--steps", "2", "-n", "2", "--reward-command", "echo 0.$RANDOM"))
        self.assertEqual((report["lines"], report["step"]), (2, 2))

    def test_a_dispatcher_sees(self):
        """The same question about either picture belongs to another expert."""
        os.makedirs(self.path("experts"))
        for name in ["lines", "squares"]:
            self.ok(*self.train("sft", self.lines([{"prompt": name, "answer": name}]), "--name", name, "--steps", "1", "--batch", "1"))
            os.rename(self.path("seen.safetensors"), self.path(f"experts/{name}.safetensors"))
        labelled = [{**line, "answer": name} for line, name in zip(self.LINES[:2], ["lines", "squares"])]
        self.ok(*self.train("classify", self.lines(labelled * 5), "--experts", self.path("experts"), "--images", self.path("images"), "--name", "dispatcher",
                            "--batch", "4", "--steps", "80", "--valid-every", "20", "--rate", "0.2"))
        os.rename(self.path("seen.safetensors"), self.path("experts/dispatcher.safetensors"))
        squares = []
        for line in labelled:
            asked = ["ask", "-m", self.model, "--chat-template", "chatml", "--experts", self.path("experts"), "--strategy", "classifier", "-n", "1", "what is it?",
                     "--image", os.path.join(self.path("images"), line["image"])]
            squares.append(self.ok_json(*asked)["categories"]["squares"])
        self.assertLess(squares[0], 0.01)
        self.assertGreater(squares[1], 0.1)

    def test_a_model_that_reads_text_alone(self):
        result = self.refused(1, "no line that can be used", by=self.train("sft", self.lines(self.LINES[:2]), "--images", self.path("images"), model=self.factored))
        self.assertEqual(result.err.count("it is about an image, and the model has no image tower"), 2)


class Usage(program.ProgramTest):
    def test_wrong_use(self):
        whole = ["train", "-m", "m", "--task", "sft", "--data", "d", "--dump-gradient", "g"]
        for by, message in [(whole[:1] + whole[3:], "which model?"), (whole[:5] + whole[7:], "which data?"), (whole[:7], "give either -o FILE"), (whole + ["-o", "x"], "give either -o FILE"), (whole + ["--valid", "v"], "trains nothing"),
                            (whole[:7] + ["-o", "x", "--expert", "e"], "--init"), (whole[:7] + ["-o", "x", "--plot", "p"], "--log FILE"),
                            (whole[:7] + ["-o", "x", "--form", "cube"], "--form is"), (whole[:7] + ["-o", "x", "--matrices", "some"], "--matrices is"),
                            (whole[:7] + ["-o", "x", "--max-mult", "2"], "--form sigmoid"), (whole[:7] + ["-o", "x", "--init", "i", "--form", "scale"], "--init says"),
                            (whole[:3] + whole[5:], "--task is sft"), (whole[:4] + ["cooking"] + whole[5:], "--task is sft"),
                            (whole[:4] + ["classify"] + whole[5:], "--experts DIR"), (whole[:7] + ["-o", "x", "--experts", "d"], "--experts DIR"),
                            (whole[:4] + ["gsm8k"] + whole[5:], "belongs to --task sft"),
                            (whole[:7] + ["-o", "x", "--greedy"], "not made or scored"), (whole[:4] + ["label", "--data", "d", "-o", "x", "--preset", "mine"], "--preset is"),
                            (whole[:4] + ["label", "--data", "d", "-o", "x", "--kl-direction", "up"], "--kl-direction is"), (whole + ["more"], "given by --data"),
                            (whole + ["--deterministic", "--precision", "fast"], "precision exact"), (whole + ["--kv", "f16"], "as f32")]:
            self.refused(2, message, by=by)


if __name__ == "__main__":
    program.main()
