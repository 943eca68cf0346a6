"""The real model as a user runs it: two passes with the starter experts, Ctrl-C, going on after it."""
import os
import time

import program


def wait_for(condition, seconds=30):
    end = time.monotonic() + seconds
    while time.monotonic() < end and not condition():
        time.sleep(0.05)
    return condition()


class Interrupts(program.RealTest):
    def test_factor_goes_on_where_it_was_stopped(self):
        output = self.path("out.gguf")
        by = ["factor", self.dense, "-o", output, "--matrices", "attention"]
        process = program.start(*by)
        self.assertTrue(wait_for(lambda: os.path.exists(output + ".partial") and os.path.getsize(output + ".partial") > 2000000))
        program.interrupt(process)
        result = program.finish(process)
        self.assertEqual(result.status, 1, result.err)
        self.assertIn("the same command goes on from there", result.err)
        self.assertEqual(os.listdir(self.folder), ["out.gguf.partial"])
        self.assertGreater(self.ok_json(*by)["resumed"], 0)
        self.assertEqual(os.listdir(self.folder), ["out.gguf"])

    def test_ask_stops_promptly(self):
        process = program.start("ask", "-m", self.factored, "-n", "400", "Tell me a long story about the sea.")
        process.stdout.read(1)
        program.interrupt(process)
        result = program.finish(process)
        self.assertEqual(result.status, 1)
        self.assertLess(len(result.out.split()), 40) # of some 300 words
        self.assertIn("zsigma: ", result.err)


class TwoPasses(program.RealTest):
    CODE = "What does this Python code print? Reply with the output only.\n```python\ns = 'window'\nprint(s + 'pane')\n```"

    def ask(self, question, *more):
        return self.ok_json("ask", "-m", self.factored, "--experts", program.EXPERTS, "-n", "10", question, *more)

    def test_prompt_finds_the_expert(self):
        answer = self.ask(self.CODE)
        self.assertEqual((answer["strategy"], answer["expert"], answer["answer"]), ("prompt", "code", "windowpane"))
        self.assertEqual(set(answer["categories"]), {"code", "math", "reasoning", "other"})
        self.assertAlmostEqual(sum(answer["categories"].values()), 1, places=5)

    def test_fixed_gives_what_the_chosen_expert_gave(self):
        self.assertEqual(self.ask(self.CODE, "--expert", "code")["answer"], "windowpane")

    def test_dispatch_generate(self):
        self.assertIn(self.ask(self.CODE, "--dispatch", "generate")["expert"], ["code", "math", "reasoning", None])

    def test_classifier_asks_the_dispatcher(self):
        question = "Tom has 20 coins and buys 14 more. How many coins does Tom have now? Reply with the number only."
        answer = self.ask(question, "--strategy", "classifier")
        self.assertEqual((answer["strategy"], answer["expert"]), ("classifier", "math"))


class Seeing(program.RealTest):
    """The demo of assets/vision: tower and projector beside the model, and the vision expert."""

    def ask(self, picture, question):
        by = ["--mmproj", os.path.join(program.VISION, "mmproj.gguf"), "--expert", os.path.join(program.VISION, "vision.safetensors")]
        image = os.path.join(program.VISION, picture + ".png")
        return self.ok_json("ask", "-m", self.factored, *by, "-n", "4", "--image", image, question)["answer"]

    def test_sample_pictures(self):
        for picture, question, answer in (
            ("green-circle", "what color is the shape?", "green"),
            ("blue-rectangle", "what shape does the image contain?", "rectangle"),
            ("red-triangle", "is there a green shape?", "no"),
        ):
            with self.subTest(picture=picture, question=question):
                self.assertEqual(self.ask(picture, question), answer)


if __name__ == "__main__":
    program.main()
