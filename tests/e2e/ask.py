"""ask, chat, score, tokenize and expert on the tiny model: output, JSON, streaming, colours, limits."""
import os
import re

import expert_files
import program
from program import zsigma

NUMBER = (int, float)


def has_fields(test, value, fields):
    for name, kinds in fields.items():
        test.assertIn(name, value)
        test.assertIsInstance(value[name], kinds, name)


class Ask(program.TinyTest):
    FIELDS = {"answer": str, "tokens": list, "strategy": str, "expert": (str, type(None)), "alpha": (dict, type(None)), "categories": dict,
              "mode": str, "pass1_ms": NUMBER, "prefill_ms": NUMBER, "decode_tokens_per_s": NUMBER, "device": str}

    def ask(self, *more, model=None):
        return self.ok_json("ask", "-m", model or self.factored, "-n", "8", "Hello there", *more)

    def experts(self, **more):
        folder = self.path("experts")
        expert_files.tiny(folder, "math", seed=1, **more)
        expert_files.tiny(folder, "code", seed=2, **more)
        return folder

    def test_json_fields_without_experts(self):
        answer = self.ask()
        has_fields(self, answer, self.FIELDS)
        self.assertEqual((answer["strategy"], answer["expert"], answer["alpha"], answer["categories"]), ("none", None, None, {}))
        self.assertEqual(answer["mode"], "factored")
        self.assertLessEqual(len(answer["tokens"]), 8)
        self.assertGreater(len(answer["tokens"]), 0)

    def test_same_question_same_answer(self):
        self.assertEqual(self.ask()["tokens"], self.ask()["tokens"])
        self.assertEqual(self.ask("--temp", "2", "--seed", "5")["tokens"], self.ask("--temp", "2", "--seed", "5")["tokens"])
        self.assertNotEqual(self.ask("--temp", "2", "--seed", "5")["tokens"], self.ask("--temp", "2", "--seed", "6")["tokens"])

    def test_sampling_limited_to_the_likeliest_token_is_greedy(self):
        greedy = self.ask()["tokens"]
        self.assertEqual(self.ask("--temp", "2", "--top-k", "1")["tokens"], greedy)
        self.assertEqual(self.ask("--temp", "2", "--top-p", "0.000001")["tokens"], greedy)
        self.assertEqual(self.ask("--temp", "0.5", "--min-p", "1")["tokens"], greedy)

    def test_strategy_fixed_by_name_and_by_file(self):
        folder = self.experts()
        by_name = self.ask("--experts", folder, "--strategy", "fixed", "--expert", "math")
        by_file = self.ask("--expert", os.path.join(folder, "math.safetensors"))
        self.assertEqual((by_name["strategy"], by_name["expert"]), ("fixed", "math"))
        self.assertEqual((by_file["strategy"], by_file["expert"]), ("fixed", "math"))
        self.assertEqual(by_name["tokens"], by_file["tokens"])
        self.assertNotEqual(by_name["tokens"], self.ask()["tokens"])

    def test_strategy_none_is_the_base_with_or_without_experts(self):
        self.assertEqual(self.ask("--experts", self.experts(), "--strategy", "none")["tokens"], self.ask()["tokens"])

    def test_strategy_mix(self):
        folder = self.experts()
        mix = self.ask("--experts", folder, "--strategy", "mix", "--alpha", "math=0.5,code=0.5")
        self.assertEqual((mix["strategy"], mix["expert"], mix["alpha"]), ("mix", "mix", {"math": 0.5, "code": 0.5}))
        alone = self.ask("--experts", folder, "--strategy", "mix", "--alpha", "math=1")
        self.assertEqual(alone["alpha"], {"math": 1, "code": 0})
        self.assertEqual(alone["tokens"], self.ask("--experts", folder, "--expert", "math")["tokens"])
        self.assertNotEqual(alone["tokens"], mix["tokens"])

    def test_wrong_weights_of_a_mix(self):
        by = ["ask", "-m", self.factored, "--experts", self.experts(), "Hello", "--alpha"]
        for alpha, message in [("math=0,code=0", "all weights of the mix are 0"), ("maths=1", "no expert named 'maths'"),
                               ("math", "not of the form NAME=WEIGHT"), ("math=much", "not a number"), ("math=nan", "not a sensible number"),
                               ("math=0.5, math=0.5", "math is named twice")]:
            self.refused(1, message, by=[*by, alpha])
        self.assertIn("add up to 0.75", self.ok(*by, "math=0.5, code=0.25", "-n", "1").err)
        self.assertNotIn("add up", self.ok(*by, "math=0.5,code=0.5", "-n", "1").err)

    def test_classifier_without_dispatcher(self):
        self.refused(1, "role=dispatcher", "strategy prompt works",
                     by=["ask", "-m", self.factored, "--experts", self.experts(), "--strategy", "classifier", "Hello"])

    def test_dense_model(self):
        dense, factored = self.ask(model=self.dense), self.ask()
        self.assertEqual(dense["mode"], "dense")
        self.assertEqual(dense["tokens"][0], factored["tokens"][0])

    def test_mode_is_insisted_on(self):
        self.assertEqual(self.ask("--mode", "factored")["mode"], "factored")
        self.assertEqual(self.ask("--mode", "dense", model=self.dense)["mode"], "dense")
        self.refused(1, "zsigma factor", by=["ask", "-m", self.dense, "--mode", "factored", "Hello"])
        self.refused(1, self.factored, by=["ask", "-m", self.factored, "--mode", "dense", "Hello"])

    def test_composed(self):
        factored = self.ask()
        for asked, mode in [("composed", "composed:f16"), ("composed:f16", "composed:f16"), ("composed:q8_0", "composed:q8_0"), ("composed:q4_0", "composed:q4_0")]:
            answer = self.ask("--mode", asked)
            self.assertEqual(answer["mode"], mode)
            self.assertGreater(answer["compose_ms"], 0)
            if mode == "composed:f16":
                self.assertEqual(answer["tokens"], factored["tokens"])
        self.assertEqual((self.ask("--mode", "auto")["mode"], factored["compose_ms"]), ("factored", 0))
        self.refused(1, "--mode composed:q8_0", "zsigma factor", by=["ask", "-m", self.dense, "--mode", "composed:q8_0", "Hello"])

    def test_plan(self):
        plan = self.ok_json("ask", "-m", self.factored, "--plan")
        size = plan["bytes"]["device"]
        self.assertEqual((plan["mode"], plan["factors"], plan["fits"]), ("factored", "device", True))
        self.assertEqual(size["total"], sum(size[part] for part in ["weights", "factors", "composed", "experts", "kv", "workspace"]))
        self.assertEqual((size["composed"], plan["bytes"]["host"], plan["bytes"]["file"]), (0, 0, 0))
        composed = self.ok_json("chat", "-m", self.factored, "--plan", "--mode", "composed:q8_0")
        self.assertEqual((composed["mode"], composed["bytes"]["device"]["factors"]), ("composed:q8_0", size["factors"]))
        self.assertGreater(composed["bytes"]["device"]["composed"], 0)
        self.assertEqual(self.ok_json("score", "-m", self.dense, "--plan")["mode"], "dense")
        text = self.ok("ask", "-m", self.factored, "--plan").out
        self.assertIn(str(size["factors"]), text)
        reason = plan["reasons"][-1].split(", with all else")[0]  # what is free changes from one moment to the next
        self.assertIn(reason, text)
        self.assertIn(reason, self.ok("ask", "-m", self.factored, "-n", "2", "Hello", "--verbose").err)
        self.refused(1, "zsigma factor", by=["ask", "-m", self.dense, "--plan", "--mode", "composed"])
        self.refused(2, "nothing is asked", by=["ask", "-m", self.factored, "--plan", "Hello"])

    def test_context(self):
        long = "word " * 200
        self.refused(1, "256", by=["ask", "-m", self.factored, long])
        self.refused(1, "64", by=["ask", "-m", self.factored, "--ctx", "64", "word " * 40])
        self.refused(1, "256", by=["ask", "-m", self.factored, "--ctx", "100000", "Hello"])
        answer = self.ok_json("ask", "-m", self.factored, "--ctx", "96", "-n", "500", "Hello")
        self.assertEqual(answer["prompt_tokens"] + len(answer["tokens"]) <= 97, True)
        self.assertFalse(answer["ended"] and len(answer["tokens"]) > 96)

    def test_control_tokens_in_a_question_are_text(self):
        plain = self.ok_json("ask", "-m", self.factored, "-n", "1", "x")
        marked = self.ok_json("ask", "-m", self.factored, "-n", "1", "x<|im_end|>")
        self.assertGreater(marked["prompt_tokens"], plain["prompt_tokens"] + 3)

    def test_question_on_standard_input(self):
        typed, piped = self.ask(), self.ok_json("ask", "-m", self.factored, "-n", "8", "-", text="Hello there")
        self.assertEqual(typed["tokens"], piped["tokens"])

    def test_question_that_begins_with_a_dash(self):
        self.ok("ask", "-m", self.factored, "-n", "1", "--", "-5 + 3?")
        self.refused(2, "unknown option -5 + 3?", by=["ask", "-m", self.factored, "-5 + 3?"])

    def test_system_message(self):
        self.assertNotEqual(self.ask("--system", "Be brief.")["prompt_tokens"], self.ask()["prompt_tokens"])

    def test_text_goes_to_stdout_and_the_rest_to_stderr(self):
        text, json = self.ok("ask", "-m", self.factored, "-n", "8", "Hello there"), self.ask()
        self.assertEqual(text.out, json["answer"] + "\n")
        self.assertRegex(text.err, r"base  prompt \d+ ms  \d+ tokens at [\d.]+/s")

    def test_quiet_and_verbose(self):
        self.assertEqual(self.ok("ask", "-m", self.factored, "-n", "2", "Hello", "--quiet").err, "")
        self.assertIn("mode factored", self.ok("ask", "-m", self.factored, "-n", "2", "Hello", "--verbose").err)


class Terminal(program.TinyTest):
    def by(self):
        return ["ask", "-m", self.factored, "-n", "2", "Hello"]

    def test_no_colours_in_a_pipe(self):
        result = zsigma(*self.by(), env=program.environment(TERM="xterm"))
        self.assertNotIn("\033", result.out + result.err)
        self.assertNotIn("\033", zsigma("asc", env=program.environment(TERM="xterm")).err)

    def test_colours_on_a_terminal(self):
        status, shown = program.on_terminal("asc")
        self.assertEqual(status, 2)
        self.assertIn("\033[1;31mzsigma:\033[0m", shown)
        status, shown = program.on_terminal(*self.by())
        self.assertEqual(status, 0)
        self.assertIn("\033[2mbase", shown)

    def test_no_colours_when_they_are_not_wanted(self):
        for variables in [{"TERM": "xterm", "NO_COLOR": "1"}, {"TERM": "dumb"}, {"TERM": None}]:
            status, shown = program.on_terminal("asc", env=program.environment(**variables))
            self.assertNotRegex(shown, r"\033\[[\d;]*m")

    def test_json_on_a_terminal_has_no_colours(self):
        status, shown = program.on_terminal("expert", "show", expert_files.tiny(self.folder, "math"), "--json")
        self.assertEqual((status, shown.count("{"), "\033" in shown), (0, 9, False))

    def test_an_answer_appears_as_it_is_made(self):
        process = program.start("ask", "-m", self.factored, "-n", "150", "--temp", "3", "Hello")
        first = process.stdout.read(1)
        still_running = process.poll() is None
        process.stdout.read()
        process.communicate()
        self.assertTrue(first and still_running)


class Chat(program.TinyTest):
    def chat(self, text, *more):
        return self.ok("chat", "-m", self.factored, "-n", "4", *more, text=text)

    def test_follow_up_sees_the_conversation(self):
        both, alone = self.chat("Hello\nAnd you\n"), self.chat("And you\n")
        self.assertEqual(len(re.findall(r"tokens at", both.err)), 2)
        self.assertEqual(len(re.findall(r"tokens at", alone.err)), 1)
        self.assertNotEqual(both.out.split("\n")[1:], alone.out.split("\n"))

    def test_reset_forgets(self):
        self.assertEqual(self.chat("Hello\n/reset\nAnd you\n").out, self.chat("Hello\n").out + self.chat("And you\n").out)

    def test_commands_and_blank_lines(self):
        result = self.chat("\n   \n/help\n/quit\nHello\n")
        self.assertEqual(result.out, "")
        self.assertIn("/reset and /quit", result.err)
        self.assertEqual(self.chat("").out, "")

    def test_a_line_that_does_not_fit_does_not_end_the_chat(self):
        result = self.chat("word " * 300 + "\n/reset\nHello\n")
        self.assertIn("/reset starts a new conversation", result.err)
        self.assertIn("tokens at", result.err)

    def test_bytes_that_are_no_text(self):
        result = zsigma("chat", "-m", self.factored, "-n", "1", text=b"caf\xe9\na\0b\nHello\n")
        self.assertEqual(result.status, 0)
        self.assertIn("not valid UTF-8", result.err)
        self.assertIn("zero byte", result.err)
        self.assertIn("1 token, cut short", result.err)


class Score(program.TinyTest):
    def score(self, *more, model=None):
        return self.ok_json("score", "-m", model or self.factored, *more)

    def test_json_fields_and_sum(self):
        scored = self.score("--prompt", "Hello", "--answer", " there", "--top", "3")
        has_fields(self, scored, {"tokens": list, "logprobs": list, "sum": NUMBER, "first_token_top": list})
        self.assertEqual(len(scored["tokens"]), len(scored["logprobs"]))
        self.assertAlmostEqual(sum(scored["logprobs"]), scored["sum"], places=5)
        self.assertLess(max(scored["logprobs"]), 0)
        top = scored["first_token_top"]
        self.assertEqual(len(top), 3)
        self.assertEqual([set(entry) for entry in top], [{"id", "logprob"}] * 3)
        self.assertEqual(sorted((-entry["logprob"] for entry in top)), [-entry["logprob"] for entry in top])

    def test_top_over_the_whole_vocabulary_is_a_distribution(self):
        from math import exp
        top = self.score("--prompt", "Hello", "--answer", "x", "--top", "300")["first_token_top"]
        self.assertAlmostEqual(sum(exp(entry["logprob"]) for entry in top), 1, places=4)
        self.refused(1, "vocabulary of 300", by=["score", "-m", self.factored, "--prompt", "a", "--answer", "b", "--top", "301"])

    def test_dense_and_factored_agree(self):
        by = ["--prompt", "the man and the hat", "--answer", " is on the list"]
        for other in [["--tier", "strict"], ["--precision", "exact"], ["--kv", "f32"]]:
            dense, factored = self.score(*by, *other, model=self.dense), self.score(*by, *other)
            self.assertEqual(dense["tokens"], factored["tokens"])
            for a, b in zip(dense["logprobs"], factored["logprobs"]):
                self.assertAlmostEqual(a, b, delta=0.03)

    def test_hugging_face_folder(self):
        """The same weights in safetensors files: the same bits, as they are and factored."""
        folder, by = self.dense.replace(".gguf", "-folder"), ["--prompt", "the man and the hat", "--answer", " is on the list"]
        self.assertEqual(self.score(*by, model=self.dense), self.score(*by, model=folder))
        self.assertEqual(self.ok("tokenize", "-m", folder, text="the hat 12").out, self.ok("tokenize", "-m", self.dense, text="the hat 12").out)
        for matrices in ["mlp", "all"]:
            scored = []
            for model in [self.dense, folder]:
                self.ok("factor", model, "-o", self.path("f.gguf"), "--matrices", matrices, "--force")
                scored.append(self.score(*by, model=self.path("f.gguf")))
            self.assertEqual(*scored)

    def test_chat_template_by_hand(self):
        by = ["--prompt", "a", "--answer", "b"]
        spelled = ["--raw", "--prompt", "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n", "--answer", "b"]
        self.assertEqual(self.score(*by, "--chat-template", "chatml"), self.score(*spelled))  # without the model's own system message
        self.refused(1, "there is no family of chat templates named alpaca", by=["score", "-m", self.dense, *by, "--chat-template", "alpaca"])

    def test_fast_against_exact(self):
        by = ["--prompt", "the man and the hat", "--answer", " is on the list"]
        exact, fast = self.score(*by, "--precision", "exact"), self.score(*by, "--precision", "fast", "--kv", "f16")
        for a, b in zip(exact["logprobs"], fast["logprobs"]):
            self.assertAlmostEqual(a, b, delta=0.1)

    def test_raw_is_the_template_spelled_out(self):
        chat = self.score("--prompt", "Hello", "--answer", "x")
        raw = self.score("--raw", "--prompt", "<|im_start|>system\nYou are a tiny model.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n"
                         "<|im_start|>assistant\n", "--answer", "x")
        self.assertEqual((chat["prompt_tokens"], chat["logprobs"]), (raw["prompt_tokens"], raw["logprobs"]))

    def test_control_tokens_without_raw_are_text(self):
        plain, marked = self.score("--prompt", "a", "--answer", "x"), self.score("--prompt", "a<|im_end|>", "--answer", "x")
        self.assertGreater(marked["prompt_tokens"], plain["prompt_tokens"] + 3)
        self.assertGreater(len(self.score("--prompt", "a", "--answer", "<|im_end|>")["tokens"]), 3)

    def test_under_an_expert(self):
        file = expert_files.tiny(self.folder, "math")
        ones = expert_files.tiny(self.folder, "ones", spread=0)
        by = ["--prompt", "Hello", "--answer", "x"]
        base, changed, same = self.score(*by), self.score(*by, "--expert", file), self.score(*by, "--expert", ones)
        self.assertNotEqual(base["sum"], changed["sum"])
        self.assertEqual(base["sum"], same["sum"])

    def test_prompt_beyond_the_context(self):
        self.refused(1, "256", by=["score", "-m", self.factored, "--prompt", "word " * 300, "--answer", "x"])

    def test_text_for_a_person(self):
        out = self.ok("score", "-m", self.factored, "--prompt", "Hello", "--answer", "a\nb").out
        self.assertRegex(out, r"\n *-\d+\.\d+  sum over \d+ tokens\n$")
        self.assertIn("\\n", out)


class Tokenize(program.TinyTest):
    def ids(self, text, *more):
        return self.ok_json("tokenize", "-m", self.dense, *more, text=text)["ids"]

    def test_text_and_json_agree(self):
        out = self.ok("tokenize", "-m", self.dense, text="the hat").out
        self.assertEqual([int(part) for part in out.split()], self.ids("the hat"))

    def test_control_tokens_count_only_with_special(self):
        self.assertEqual(self.ids("<|im_end|>", "--special"), [2])
        self.assertGreater(len(self.ids("<|im_end|>")), 3)
        self.assertNotIn(2, self.ids("<|im_end|>"))

    def test_empty_text_and_any_bytes(self):
        self.assertEqual(self.ids(b""), [])
        self.assertEqual(self.ids(b"\xff\x00\xfe"), [3 + 0xff, 3, 3 + 0xfe])

    def test_standard_input_that_cannot_be_read(self):
        folder = os.open(self.folder, os.O_RDONLY)
        result = program.finish(program.start("tokenize", "-m", self.dense, stdin=folder))
        os.close(folder)
        self.assertEqual(result.status, 1)
        self.assertIn("standard input", result.err)

    def test_needs_no_device(self):
        env = program.environment(VK_DRIVER_FILES="/nonexistent")
        self.ok("tokenize", "-m", self.factored, text="x", env=env)


class Expert(program.TinyTest):
    def test_show(self):
        file = expert_files.tiny(self.folder, "math")
        self.assertIn("questions of math", self.ok("expert", "show", file).out)
        shown = self.ok_json("expert", "show", file)
        has_fields(self, shown, {"name": str, "description": str, "role": str, "base_model": str, "parameterisation": str, "normalise": str,
                                 "matrices": int, "values": int, "kinds": dict})
        self.assertEqual((shown["name"], shown["role"], shown["matrices"]), ("math", "expert", 14))
        self.assertEqual(set(shown["kinds"]), {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"})

    def test_compare(self):
        a, b = expert_files.tiny(self.folder, "a", seed=1), expert_files.tiny(self.folder, "b", seed=2)
        self.assertIn("shared matrices     14", self.ok("expert", "compare", a, b).out)
        same, other = self.ok_json("expert", "compare", a, a), self.ok_json("expert", "compare", a, b)
        self.assertAlmostEqual(same["cosine"], 1)
        self.assertEqual(same["largest_difference"], 0)
        self.assertLess(abs(other["cosine"]), 0.3)

    def test_files_that_are_none(self):
        a = expert_files.tiny(self.folder, "a")
        self.refused(1, "No such file", by=["expert", "compare", a, self.path("none")])
        self.refused(1, "main.c", by=["expert", "show", os.path.join(program.SOURCE, "tools", "main.c")])


if __name__ == "__main__":
    program.main()
