"""Questions about images: what transformers scored on tiny models, several images, standard input, and what is refused."""
import json
import os
import shutil
import unittest

import expert_files
import program
from program import zsigma

VISION = os.path.join(program.SOURCE, "tests", "golden", "vision")


def image(name):
    return os.path.join(VISION, "images", name + ".png")


class Images(program.TinyTest):
    def score(self, model, *more, **options):
        result = zsigma("score", "-m", model, "--raw", "--precision", "exact", "--json", *more, **options)
        self.assertEqual(result.status, 0, result.err)
        return result.json()

    def golden(self, family, name):
        with open(os.path.join(VISION, family + "-golden.json"), encoding="utf-8") as file:
            return next(row for row in json.load(file) if row["image"] == name)

    def test_as_transformers(self):
        for family, name in (("llava-1.5", "41x97"), ("llava-next", "1x1"), ("smolvlm", "97x41")):
            row = self.golden(family, name)
            by = ["--prompt", row["prompt"], "--answer", row["answer"]]
            scored = self.score(os.path.join(VISION, family), *by, "--image", image(name))
            self.assertEqual(scored["prompt_tokens"], row["n_prompt_tokens"])
            for ours, theirs in zip(scored["logprobs"], row["answer_logprobs"], strict=True):
                self.assertAlmostEqual(ours, theirs, delta=2e-3)

    def test_several_and_standard_input(self):
        model = os.path.join(VISION, "llava-1.5")
        by = ["--prompt", "<image>Here <image>and there", "--answer", " a"]
        files = self.score(model, *by, "--image", image("56x56"), "--image", image("41x97"))
        with open(image("56x56"), "rb") as file:
            data = file.read()
        self.assertEqual(self.score(model, *by, "--image", "-", "--image", image("41x97"), text=data), files)
        swapped = self.score(model, *by, "--image", image("41x97"), "--image", image("56x56"))
        self.assertEqual(swapped["prompt_tokens"], files["prompt_tokens"])
        self.assertNotEqual(swapped["logprobs"], files["logprobs"])

    def test_refused(self):
        model = os.path.join(VISION, "llava-1.5")
        by = ["score", "-m", model, "--raw", "--answer", "a", "--prompt"]
        self.refused(1, "1 image mark (<image>) for 2 images", by=[*by, "<image>x", "--image", image("1x1"), "--image", image("1x1")])
        self.refused(1, "0 image marks (<image>) for 1 image", by=[*by, "x", "--image", image("1x1")])
        self.refused(1, "none.png", "No such file", by=[*by, "<image>x", "--image", "none.png"])
        self.refused(1, "no PNG, JPEG, BMP, GIF or PNM", by=[*by, "<image>x", "--image", __file__])
        self.refused(1, "the image on standard input is empty", by=[*by, "<image>x", "--image", "-"])
        self.refused(2, "--image goes with --raw", by=["score", "-m", model, "--prompt", "<image>x", "--answer", "a", "--image", image("1x1")])
        self.refused(2, "--image can be given 16 times", by=[*by, "x", *["--image", image("1x1")] * 17])
        self.refused(1, "reads text alone", by=["score", "-m", self.dense, "--raw", "--prompt", "<image>x", "--answer", "a", "--image", image("1x1")])

    def ask(self, family, question, *more, **options):
        return self.ok_json("ask", "-m", os.path.join(VISION, family), "--chat-template", "chatml", "--precision", "exact", "-n", "1", *more, question,
                            **options)

    def test_ask(self):
        """The prompt is the golden one but for what stands between image and question, and for what is asked."""
        for family, seam in (("llava-1.5", "\n"), ("smolvlm", "")):
            prompt = f"<|im_start|>user\n<image>{seam}What is it?<|im_end|>\n<|im_start|>assistant\n"
            answer = self.ask(family, "What is it?", "--image", image("97x41"))
            raw = self.score(os.path.join(VISION, family), "--prompt", prompt, "--answer", "a", "--top", "1", "--image", image("97x41"))
            self.assertEqual(answer["prompt_tokens"], raw["prompt_tokens"])
            self.assertEqual(answer["tokens"][0], raw["first_token_top"][0]["id"])

    def test_ask_several(self):
        with open(image("1x1"), "rb") as file:
            data = file.read()
        one = self.ask("llava-1.5", "What?", "--image", image("1x1"))
        two = self.ask("llava-1.5", "What?", "--image", "-", "--image", image("56x56"), text=data)
        self.assertEqual(two["prompt_tokens"], one["prompt_tokens"] + 16)
        self.refused(1, "reads text alone", by=["ask", "-m", self.factored, "What?", "--image", image("1x1")])
        self.refused(2, "standard input", by=["ask", "-m", self.factored, "-", "--image", "-"], text="What?")
        self.refused(1, "none.png", by=["ask", "-m", self.factored, "What?", "--image", "none.png"])

    def chat(self, text, *more, model=None):
        return self.ok("chat", "-m", model or os.path.join(VISION, "llava-1.5"), "--chat-template", "chatml", "--precision", "exact", "-n", "1", *more, text=text)

    def test_chat(self):
        """What was shown stays in the conversation and is looked at once; each answer is that of the whole prompt."""
        lines = [f"/image {image('97x41')} ", "What is it?", "And now?", "/image none.png", f"/image {image('56x56')}", f"/image {__file__}", "/image", "This?"]
        result = self.chat("\n".join(lines))
        prompt, answers, pictures = "", result.out.splitlines(), []
        self.assertEqual(len(answers), 3)
        for question, new, answer in zip(["What is it?", "And now?", "This?"], ["97x41", None, "56x56"], answers):
            pictures += ["--image", image(new)] if new else []
            head = "<image>\n" if new else ""
            prompt += f"<|im_start|>user\n{head}{question}<|im_end|>\n<|im_start|>assistant\n"
            raw = self.ok("score", "-m", os.path.join(VISION, "llava-1.5"), "--raw", "--precision", "exact", "--prompt", prompt, "--answer", answer, "--top", "1",
                          *pictures).out.splitlines()
            self.assertEqual(raw[0].split()[:2], raw[-1].split()[:2], question)
            prompt += f"{answer}<|im_end|>\n"
        told = [line for line in result.err.splitlines() if "prompt" in line]
        self.assertEqual(["1 image in" in line for line in told], [True, False, True])
        for words in ["97x41.png (16 tokens) goes with the next question", "none.png: No such file", "no PNG, JPEG, BMP, GIF or PNM", "which image? /image FILE"]:
            self.assertIn(words, result.err)

    def test_chat_refuses(self):
        shown = f"/image {image('56x56')}\n"
        result = self.chat(shown + "/reset\nHello\n")  # forgotten before it was asked about
        self.assertEqual(result.out, self.chat("Hello\n").out)
        self.assertIn("reads text alone", self.chat(shown + "Hello\n", model=self.factored).err)
        result = self.chat(shown + "Hello\n", "--ctx", "16")
        self.assertIn("takes 16 tokens, and the context holds 16", result.err)

    def test_pass_1(self):
        """The classifier sees what is asked about, strategy prompt reads; the image is encoded once for both passes."""
        model, folder = self.path("model.gguf"), self.path("experts")
        self.ok("factor", os.path.join(VISION, "llava-1.5"), "-o", model, "--quiet")
        for seed, (name, role) in enumerate([("math", "expert"), ("code", "expert"), ("kinds", "dispatcher")]):
            expert_files.tiny(folder, name, seed=seed, role=role)

        def ask(strategy, picture, *more):
            return self.ok_json("ask", "-m", model, "--chat-template", "chatml", "--precision", "exact", "-n", "2", "What is it?", "--experts", folder,
                                "--strategy", strategy, "--image", image(picture), *more)

        seen, other = ask("classifier", "97x41"), ask("classifier", "56x56")
        self.assertNotEqual(seen["categories"], other["categories"])
        self.assertEqual(ask("prompt", "97x41")["categories"], ask("prompt", "56x56")["categories"])
        self.assertEqual(seen["images"], 0)  # pass 1 has encoded it
        alone = ask("fixed", "97x41", "--expert", seen["expert"]) if seen["expert"] else ask("none", "97x41")
        self.assertEqual((alone["tokens"], alone["prompt_tokens"], alone["images"]), (seen["tokens"], seen["prompt_tokens"], 1))
        written = ask("classifier", "97x41", "--dispatch", "generate")
        self.assertEqual(sum(written["categories"].values()), 1)

    def test_mmproj(self):
        """llama.cpp's pair of files is the folder that it was made from; a file of another model or of something else is told."""
        text, mmproj = (self.dense.replace("tiny.gguf", name) for name in ("tiny-pair.gguf", "tiny-mmproj.gguf"))
        pair = ["-m", text, "--mmproj", mmproj, "--chat-template", "chatml"]
        row = self.golden("llava-1.5", "41x97")
        scored = self.score(text, "--mmproj", mmproj, "--prompt", row["prompt"], "--answer", row["answer"], "--image", image("41x97"))
        for ours, theirs in zip(scored["logprobs"], row["answer_logprobs"], strict=True):
            self.assertAlmostEqual(ours, theirs, delta=2e-3)
        about = ["What is it?", "--image", image("97x41")]
        answer = self.ok_json("ask", *pair, "--precision", "exact", "-n", "1", *about)
        self.assertEqual(answer["tokens"], self.ask("llava-1.5", *about)["tokens"])
        shown = self.ok("chat", *pair, "-n", "1", text=f"/image {image('97x41')}\nWhat?\n")
        self.assertIn("1 image in", shown.err)
        with_tower, without = (self.ok_json("ask", *pair[:end], "--plan")["bytes"]["device"]["weights"] for end in (4, 2))
        self.assertGreater(with_tower, without)
        for file, words in ((text, "no file of an image tower"), ("none.gguf", "No such file"), (__file__, __file__)):
            self.refused(1, words, by=["ask", "-m", text, "--mmproj", file, *about])
        other = os.path.join(program.SOURCE, "tests", "golden", "architectures", "llama2")
        self.refused(1, "they are of different models", by=["ask", "-m", other, "--mmproj", mmproj, *about])
        self.refused(1, "of its own", by=["ask", "-m", os.path.join(VISION, "smolvlm"), "--mmproj", mmproj, *about])
        self.refused(1, "reads text alone", "--mmproj", by=["ask", "-m", text, "--chat-template", "chatml", *about])

    def test_towers_that_do_not_fit(self):
        """Of another width than the decoder, in a folder; a tower's file that is cut off, or of which a key is another."""
        folder = self.path("folder")
        shutil.copytree(os.path.join(VISION, "llava-1.5"), folder)
        with open(os.path.join(folder, "model.safetensors"), "r+b") as file:
            whole = file.read()
            name = b'"multi_modal_projector.linear_2.weight":{"dtype":"F16","shape":[64,64]'
            self.assertEqual(whole.count(name), 1)
            file.seek(0)
            file.write(whole.replace(name, name[:-7] + b"[4096] "))
        about = ["--chat-template", "chatml", "-n", "1", "What is it?", "--image", image("56x56")]
        self.refused(1, "linear_2", by=["ask", "-m", folder, *about])
        text, mmproj = (self.dense.replace("tiny.gguf", name) for name in ("tiny-pair.gguf", "tiny-mmproj.gguf"))
        with open(mmproj, "rb") as file:
            data = file.read()
        for size in (0, 3, 40, 2000, len(data) // 2, len(data) - 1):
            self.refused(1, "cut.gguf", by=["ask", "-m", text, "--mmproj", self.write("cut.gguf", data[:size]), *about])
        other = data.replace(b"clip.vision.patch_size", b"clip.vision.patch_sizf")
        self.refused(1, "clip.vision.patch_size is missing", by=["ask", "-m", text, "--mmproj", self.write("other.gguf", other), *about])

    def test_what_does_not_fit(self):
        model = ["-m", os.path.join(VISION, "llava-1.5"), "--chat-template", "chatml", "-n", "1"]
        self.refused(1, "16 of them for its images, and the context holds 24: raise --ctx", by=["ask", *model, "--ctx", "24", "What is it?", "--image", image("56x56")])
        several = [word for _ in range(3) for word in ("--image", image("56x56"))]
        self.refused(1, "48 of them for its images", by=["ask", *model, "--ctx", "56", "What is it?", *several])
        # Text that looks like a mark is text.
        self.assertGreater(self.ask("llava-1.5", "<image>What?", "--image", image("56x56"))["prompt_tokens"],
                           self.ask("llava-1.5", "What?", "--image", image("56x56"))["prompt_tokens"])

    def test_damaged(self):
        with open(image("56x56"), "rb") as file:
            data = file.read()
        cut = self.write("cut.png", data[:-20])
        flipped = self.write("flipped.png", data[:2000] + bytes([data[2000] ^ 1]) + data[2001:])
        by = ["score", "-m", os.path.join(VISION, "llava-1.5"), "--raw", "--prompt", "<image>x", "--answer", "a", "--image"]
        self.refused(1, cut, "truncated", by=[*by, cut])
        self.refused(1, flipped, "checksum", by=[*by, flipped])


if __name__ == "__main__":
    program.main()
