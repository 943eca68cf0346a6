"""zsigma eval on questions about images: the published formats with their images, each encoded once, going on after an interruption."""
import json
import os
import shutil
import unittest

import program

VISION = os.path.join(program.SOURCE, "tests", "golden", "vision")
MODEL = os.path.join(VISION, "llava-1.5")
IMAGE_TOKENS = 16  # of that model
SUFFIX = "\nAnswer the question using a single word or phrase."
PICTURES = ["97x41", "56x56", "1x1"]
EASY = [["what shape is present?", "circle", 0], ["is there a red shape?", "yes", 1], ["is there no circle?", "no", 0], ["is there a teal shape?", "yes", 2],
        ["is there not a blue shape?", "yes", 1], ["is there a circle?", "no", 0]]


class EvalImages(program.TinyTest):
    def images(self, *names, folder="images"):
        os.makedirs(self.path(folder), exist_ok=True)
        for name, picture in zip(names, PICTURES):
            shutil.copy(os.path.join(VISION, "images", picture + ".png"), os.path.join(self.path(folder), name))
        return self.path(folder)

    def easy(self, questions=EASY):
        self.images("0.png", "1.png", "2.png")
        return self.write("questions.json", json.dumps(questions))

    def eval(self, task, data, *more, model=MODEL):
        return ["eval", "-m", model, "--chat-template", "chatml", "--precision", "exact", "--task", task, "--data", data, "-n", "3", *more]

    def results(self, name="out"):
        with open(self.path(name + ".results.jsonl"), encoding="utf-8") as file:
            return {line["question"]: line for line in map(json.loads, file) if "answer" in line}

    def ask(self, question, *pictures):
        options = [word for picture in pictures for word in ("--image", os.path.join(VISION, "images", picture + ".png"))]
        return self.ok_json("ask", "-m", MODEL, "--chat-template", "chatml", "--precision", "exact", "-n", "3", question + SUFFIX, *options)["answer"]

    def test_answers_are_those_of_ask(self):
        report = self.ok_json(*self.eval("easy-vqa", self.easy(), "-o", self.path("out")))
        none = report["strategies"][0]
        self.assertEqual((report["questions"], none["count"], none["images"]), (6, 6, 3))  # each image once
        self.assertEqual({kind: c["count"] for kind, c in none["categories"].items()},
                         {"which shape": 1, "colour present?": 2, "shape absent?": 1, "colour absent?": 1, "shape present?": 1})
        told = self.results()
        for number in (1, 2):
            question, _, image = EASY[number - 1]
            self.assertEqual(told[number]["answer"], self.ask(question, PICTURES[image]), question)
        majority = report["majority"]
        self.assertEqual((majority["answer"], majority["right"], majority["count"]), ("yes", 3, 6))
        self.assertEqual(majority["categories"]["which shape"]["answer"], "circle")
        with open(self.path("out.md"), encoding="utf-8") as file:
            table = file.read()
        for words in ["| always “yes” | 3 / 6 | 50.00 % | 18.76 – 81.24 |", "| which shape | 1 | 0.00 % | 100.00 % “circle” |", "Images encoded by none: 3 in"]:
            self.assertIn(words, table)

    def test_goes_on_where_it_was_interrupted(self):
        data, count = self.easy(), self.write("count", "")
        part = self.eval("easy-vqa", data, "-o", self.path("part"), "--parallel", "1", "--reward-command",
                         f"test $(cat {count} | wc -c) -lt 4 && printf x >> {count} && echo 0")
        self.refused(1, "the reward command failed", by=part)
        done = self.results("part")
        self.assertEqual(sorted(done), [1, 2, 3, 6])  # by image
        self.write("count", "")
        result = self.ok(*part)
        self.assertIn("none: 4 of 6 answers are there already", result.err)
        self.ok(*self.eval("easy-vqa", data, "-o", self.path("whole")))
        self.assertEqual({n: line["answer"] for n, line in self.results("part").items()}, {n: line["answer"] for n, line in self.results("whole").items()})
        self.refused(1, "images was true", by=self.eval("easy-vqa", data, "-o", self.path("whole"), "--blind"))

    def test_images_that_cannot_be_used(self):
        data = self.easy([*EASY[:1], *EASY[3:4], ["is there a dog?", "no", 7]])
        with open(self.path("images/2.png"), "r+b") as file:
            file.truncate(60)
        result = self.ok(*self.eval("easy-vqa", data, "--json"))
        self.assertEqual((json.loads(result.out)["left_out"], json.loads(result.out)["questions"]), (2, 1))
        self.assertIn("line 2 is left out: ", result.err)
        self.assertIn("truncated", result.err)
        self.assertIn("7.png: No such file", result.err)
        self.refused(1, "line 1 is left out: the question has", "the context of 48 does not hold it", "no question", by=self.eval("easy-vqa", data, "--ctx", "48"))

    def test_nothing_is_asked(self):
        images = self.images("a.png")
        lines = [{"messages": [{"role": "user", "content": "what?"}], "answer": "x", "image": "missing.png"},
                 {"messages": [{"role": "user", "content": "what?"}], "answer": "x", "image": "a.png"},
                 {"messages": [{"role": "system", "content": "Be brief."}], "answer": "x", "image": "a.png"}]
        data = self.write("lines.jsonl", "\n".join(map(json.dumps, lines)))
        self.refused(1, "line 1 is left out", "line 3 asks nothing", by=self.eval("label", data, "--images", images, "--system", "Answer."))

    def test_okvqa_and_vqav2(self):
        questions = [{"image_id": i, "question": "What is it?", "question_id": 10 + i} for i in range(2)]
        answers = [{"question_id": 10 + i, "image_id": i, "question_type": "two", "answer_type": "other", "answers": [{"answer": "sea"}] * 10}
                   for i in range(2)]
        folder = self.images("COCO_val2014_000000000000.jpg", "COCO_val2014_000000000001.jpg", folder="val2014")
        data = self.write("OpenEnded_mscoco_val2014_questions.json", json.dumps({"questions": questions}))
        by = ["--annotations", self.write("annotations.json", json.dumps({"annotations": answers})), "--images", folder, "-o"]
        for task, kind in (("okvqa", "two"), ("vqav2", "other")):
            report = self.ok_json(*self.eval(task, data, *by, self.path(task)))
            self.assertEqual((list(report["strategies"][0]["categories"]), report["strategies"][0]["images"]), ([kind], 2))
            self.assertEqual((report["majority"]["answer"], report["majority"]["share"]), ("sea", 1))
        told = self.results("okvqa")
        self.assertNotEqual(told[1]["answer"], told[2]["answer"])

    def test_textvqa_and_lines(self):
        self.images("ab.jpg", folder=".")
        data = self.write("textvqa.json", json.dumps({"data": [{"question": "What?", "question_id": 5, "image_id": "ab", "answers": ["x"] * 10}]}))
        lines = self.write("lines.jsonl", json.dumps({"prompt": "What?" + SUFFIX, "answer": "x", "image": "ab.jpg"}))
        self.ok(*self.eval("textvqa", data, "-o", self.path("read")))
        self.ok(*self.eval("label", lines, "-o", self.path("lines")))
        self.assertEqual(self.results("read")[1]["answer"], self.results("lines")[1]["answer"])

    def test_examples_have_images_too(self):
        self.images("3.png", folder="shots/images")
        shots = self.write("shots/questions.json", json.dumps([["is there a circle?", "yes", 3]]))
        by = self.eval("easy-vqa", self.easy(EASY[:1]), "--shots", shots, "--shot-count", "1", "--json")
        seeing, blind = (self.ok(*by, *more) for more in ([], ["--blind"]))
        tokens = [json.loads(result.out)["strategies"][0]["prefill_tokens"] for result in (seeing, blind)]
        self.assertEqual(tokens[0] - tokens[1], 2 * (IMAGE_TOKENS + 1))  # and a line's end
        os.remove(self.path("shots/images/3.png"))
        self.refused(1, "shots/questions.json, line 1: ", "No such file", by=by)


if __name__ == "__main__":
    program.main()
