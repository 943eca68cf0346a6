"""bench prints every figure that the project promises, as JSON, on the tiny model and on random weights. The values are not
judged: a tiny model's speed means nothing."""
import json
import os
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
import expert_files  # noqa: E402
import program  # noqa: E402

SMALL = ["--runs", "2", "--pairs", "2", "--prefill-tokens", "140", "--decode-tokens", "8", "--depth", "24", "--json"]
MOST_DISPATCHES = 10  # per layer of a decode step

SPEEDS = {"prefill_140": "tokens/s", "prefill_128": "tokens/s", "decode_8": "tokens/s", "decode_8_depth_24": "tokens/s", "decode_8_batch_8": "tokens/s",
          "decode_idle": "%", "decode_dispatches_per_layer": "dispatches"}
DEVICE = {"device_read": "GB/s", "device_multiply_add": "GFLOP/s", "device_empty_stage": "us"}
MEMORY = {"model_memory": "MB", "kv_memory": "MB", "resident_memory": "MB"}
EXPERTS = {"decode_step": "ms", "expert_switch": "ms", "experts_8_batch_8_ratio": "ratio", "experts_8_batch_8_ratio_upper_95": "ratio"}
TWO_PASS = {"two_pass_first_pass1": "ms", "two_pass_pass1": "ms", "two_pass_answer": "ms", "two_pass_overhead": "%"}
IMAGES = {"image_tiles": "tiles", "image_prompt": "tokens", "image_prepare": "ms", "image_encode": "ms", "images_encoded": "images/s",
          "tiles_encoded": "tiles/s", "image_first_token": "ms", "image_prefill": "tokens/s", "image_decode": "tokens/s"}
START = {"first_token_after_start": "ms"}
BARS = ["first_token_after_start", "resident_memory", "expert_switch", "experts_8_batch_8_ratio_upper_95", "two_pass_overhead"]


class Figures(program.TinyTest):
    def check(self, result, expected):
        figures = result["figures"]
        if "device_read" in expected and "matrix" in result["tiers"]:
            expected = {**expected, "device_matrix_units": "GFLOP/s"}
        self.assertEqual({name: figure["unit"] for name, figure in figures.items()}, expected)
        for name, figure in figures.items():
            self.assertGreaterEqual(figure["value"], 0 if name == "decode_idle" else 1e-9, name)
            self.assertLess(figure["value"], 100 if name == "decode_idle" else float("inf"), name)
            self.assertLessEqual(figure["min"], figure["value"], name)
            self.assertLessEqual(figure["value"], figure["max"], name)
            self.assertEqual("bar" in figure, name in BARS, name)
        self.assertLessEqual(figures["decode_dispatches_per_layer"]["value"], MOST_DISPATCHES)
        for name in ["device", "driver", "model", "type", "mode"]:
            self.assertTrue(result[name], name)

    def test_factored(self):
        folder = self.path("experts")
        for seed, name in enumerate(["math", "code"]):
            expert_files.tiny(folder, name, seed)
        result = self.ok_json("bench", "-m", self.factored, "--experts", folder, *SMALL)
        self.check(result, {**SPEEDS, **DEVICE, **MEMORY, **EXPERTS, **TWO_PASS, **START})
        self.assertEqual(result["mode"], "factored")

    def test_tune(self):
        self.refused(1, "no kernels to tune", by=["bench", "-m", self.factored, "--tune"])  # on a CPU driver

    def test_composed(self):
        result = self.ok_json("bench", "-m", self.factored, *SMALL, "--only", "compose")
        figures = {**DEVICE, "decode_step_factored": "ms"}
        for name in ["f16", "q8_0", "q4_0"]:
            figures.update({f"compose_{name}": "ms", f"decode_step_{name}": "ms", f"break_even_{name}": "tokens", f"compose_{name}_over_limit": "ratio"})
            kernels = result["kernels"][f"compose_{name}"]
            self.assertEqual(["embed_f16", f"pack_{name.split('_')[0]}"], [kernels[0]["kernel"], kernels[-1]["kernel"]])
            limit = sum(row["gflop_per_s"] * row["ms"] for row in kernels) / result["figures"]["device_multiply_add"]["value"]
            self.assertAlmostEqual(result["figures"][f"compose_{name}_over_limit"]["value"], result["figures"][f"compose_{name}"]["value"] / limit, places=6)
        self.assertEqual({name: figure["unit"] for name, figure in result["figures"].items()}, figures)
        for name, figure in result["figures"].items():
            self.assertTrue(figure["value"] > 0 or name.startswith("break_even"), name)
        result = self.ok_json("bench", "-m", self.factored, *SMALL, "--mode", "composed:q8_0")
        self.check(result, {**SPEEDS, **DEVICE, **MEMORY, **START})
        self.assertEqual(result["mode"], "composed:q8_0")

    def test_rollouts(self):
        result = self.ok_json("bench", "-m", self.factored, *SMALL, "--only", "rollouts")
        self.assertEqual({name: figure["unit"] for name, figure in result["figures"].items()}, {"rollouts_16": "tokens/s", "rollouts_16_over_predicted": "ratio"})
        self.assertEqual(result["figures"]["rollouts_16_over_predicted"]["bar"], 1.25)
        self.assertTrue(all(figure["min"] > 0 for figure in result["figures"].values()))

    def test_plan_of_a_model_that_no_device_holds(self):
        plan = self.ok_json("bench", "--arch", "llama3-70b", "--plan")
        on_device = plan["bytes"]["device"]
        self.assertGreater(on_device["total"], 40e9)
        # 80 layers of 8192 wide, ffn 28672, kv heads 1024: (out + in) · rank values of f16.
        values = sum((out + into) * min(out, into) for out, into in [(8192, 8192)] * 2 + [(1024, 8192)] * 2 + [(28672, 8192)] * 2 + [(8192, 28672)])
        self.assertEqual(on_device["factors"] + plan["bytes"]["host"] + plan["bytes"]["file"], 80 * 2 * values)
        dense = self.ok_json("bench", "--arch", "llama3-70b", "--plan", "--mode", "dense")["bytes"]["device"]
        self.assertEqual((dense["factors"], dense["composed"]), (0, 0))
        composed = self.ok_json("bench", "--arch", "llama3-70b", "--plan", "--mode", "composed:f16")["bytes"]["device"]
        self.assertEqual(composed["composed"] + composed["weights"], dense["weights"])

    def test_images(self):
        """A picture of 672 × 672 is larger than the tiny model's canvases: the whole image and four tiles."""
        result = self.ok_json("bench", "-m", os.path.join(program.SOURCE, "tests", "golden", "vision", "llava-next"), "--only", "decode", "--vision", *SMALL)
        self.assertEqual(result["figures"].pop("decode_8_depth_24")["unit"], "tokens/s")
        self.check(result, {"decode_8": "tokens/s", "decode_idle": "%", "decode_dispatches_per_layer": "dispatches", **IMAGES})
        self.assertEqual(result["figures"]["image_tiles"]["value"], 5)

    def test_plan_of_a_tower(self):
        """CLIP ViT-L/14 but for its last layer and a projector of two matrices, in f16, and 64 more tokens than Llama 3."""
        sees, reads = (self.ok_json("bench", "--arch", arch, "--plan", "--mode", "dense")["bytes"]["device"]["weights"] for arch in ("llava-next-8b", "llama3-8b"))
        tower = 23 * (4 * 1024 * 1024 + 2 * 1024 * 4096) + 1024 * 588 + 1024 * 4096 + 4096 * 4096
        self.assertAlmostEqual((sees - reads) / (2 * (tower + 2 * 64 * 4096)), 1, delta=0.01)  # vectors are f32

    def test_dense_has_no_experts(self):
        self.check(self.ok_json("bench", "-m", self.dense, *SMALL), {**SPEEDS, **DEVICE, **MEMORY, **START})

    def test_random_weights(self):
        by = ["bench", "--arch", "smollm2-135m", "--layers", "2", "--type", "q8_0", "--only", "decode", "--runs", "1", "--decode-tokens", "2", "--json"]
        for mode, dispatches in {"dense": 6, "factored": 10, "composed:q4_0": 6}.items():
            result, unchained = self.ok_json(*by, "--mode", mode), self.ok_json(*by, "--mode", mode, "--tier", "storage")
            self.assertEqual((result["model"], result["mode"], result["type"]), ("smollm2-135m", mode, "q8"))
            self.check(result, {"decode_2": "tokens/s", "decode_idle": "%", "decode_dispatches_per_layer": "dispatches"})
            self.assertEqual(unchained["figures"]["decode_dispatches_per_layer"]["value"], dispatches)
            self.assertLessEqual(result["figures"]["decode_dispatches_per_layer"]["value"], dispatches)

    def test_a_longer_context(self):
        by = ["bench", "--arch", "smollm2-135m", "--layers", "1", "--type", "q8_0", "--only", "decode", "--runs", "1", "--decode-tokens", "2", "--ctx", "8192"]
        self.ok(*by)
        values = 2 * 3 * 64 * (8192 + 32 * 9)  # pages for the context, and one for each of its session and branches at least
        kept = {kv: self.ok_json(*by, "--kv", kv, "--plan")["bytes"]["device"]["kv"] for kv in ["f32", "f16", "q8_0"]}
        self.assertGreaterEqual(kept["f32"], 4 * values)
        self.assertEqual([kept["f16"] * 2, kept["q8_0"] * 32], [kept["f32"], kept["f32"] * 9])

    def test_full_has_long_prompts_and_large_batches(self):
        by = ["bench", "--arch", "smollm2-135m", "--layers", "1", "--type", "q8_0", "--only", "prefill,decode,batch", "--runs", "1", "--decode-tokens", "2", "--json"]
        self.check(self.ok_json(*by, "--full"), {**{f"prefill_{n}": "tokens/s" for n in [128, 512, 2048]}, "decode_2": "tokens/s", "decode_2_depth_2048": "tokens/s",
                   **{f"decode_2_batch_{n}": "tokens/s" for n in [8, 16, 32, 64, 128]}, "decode_idle": "%", "decode_dispatches_per_layer": "dispatches"})

    def test_kernels_and_an_earlier_run_beside(self):
        by = ["bench", "-m", self.dense, "--only", "decode,kernels", "--runs", "1", "--decode-tokens", "2", "--prefill-tokens", "16"]
        first = self.ok_json(*by, "--json")
        for step in ["prefill", "decode"]:
            for row in first["kernels"][step]:
                self.assertGreater(row["calls"], 0)
                self.assertGreaterEqual(row["of_read"] + row["of_peak"], 0)
            self.assertAlmostEqual(sum(row["share"] for row in first["kernels"][step]), 1, places=6)
        figures = {name: figure["value"] for name, figure in first["figures"].items()}
        limit = sum(row["gb_per_s"] * row["ms"] / figures["device_read"] + row["calls"] * figures["device_empty_stage"] * 1e-3 for row in first["kernels"]["decode"])
        self.assertAlmostEqual(figures["decode_limit"], limit, delta=1e-6 * limit)
        self.assertGreater(figures["decode_over_limit"], 0)
        self.assertTrue(0 < figures["decode_limit_stages"] < 100)
        old = self.path("old.json")
        first["figures"]["decode_idle"]["value"] = 0  # which has no ratio
        with open(old, "w") as file:
            json.dump(first, file)
        second = self.ok_json(*by, "--json", "--compare", old)
        self.assertEqual(set(second["figures"]), set(first["figures"]))
        for name, figure in second["figures"].items():
            self.assertEqual(figure["before"], first["figures"][name]["value"], name)
        table = self.ok(*by, "--compare", old, "--markdown").out
        self.assertIn("| before | ratio |", table)
        self.assertRegex(table, r"\| decode_idle \|.* 0 \|  \|")
        self.assertRegex(table, r"\| decode_dispatches_per_layer \| (\d+) \| \1 \| \1 \| 1 \| dispatches \| \1 \| 1.000 \|")

    def test_random_experts_are_known_to_fit(self):
        for model in [["-m", self.factored], ["--arch", "smollm2-135m", "--layers", "1", "--type", "q8_0", "--mode", "factored"]]:
            err = self.ok("bench", *model, "--only", "experts", "--runs", "1", "--pairs", "1", "--prefill-tokens", "16", "--decode-tokens", "2").err
            self.assertNotIn("expert random", err)


class Refusals(program.TinyTest):
    def test_what_makes_no_sense(self):
        for words, by in [(["which model"], []), (["exclude"], ["-m", self.dense, "--arch", "smollm2-135m"]), (["llama3-8b"], ["--arch", "gpt5"]),
                          (["--arch"], ["-m", self.dense, "--layers", "1"]), (["--arch"], ["-m", self.dense, "--type", "f16"]),
                          (["--experts"], ["-m", self.factored, "--only", "two_pass"]), (["two_pass"], ["-m", self.dense, "--only", "speed"]),
                          (["--pairs"], ["-m", self.dense, "--pairs", "0"])]:
            self.refused(2, *words, by=["bench", *by])

    def test_what_is_no_earlier_run(self):
        for text, words in [("{", ["line 1"]), ("{}", ["figures", "bench --json"]), ("[1]", ["figures"])]:
            path = self.path("old.json")
            with open(path, "w") as file:
                file.write(text)
            self.refused(1, path, *words, by=["bench", "-m", self.dense, "--only", "decode", "--compare", path])
        self.refused(1, "absent.json", by=["bench", "-m", self.dense, "--only", "decode", "--compare", self.path("absent.json")])

    def test_a_part_that_cannot_run(self):
        by = ["--prefill-tokens", "16", "--decode-tokens", "4", "--quiet"]
        self.refused(1, "vision", "a model that sees images", by=["bench", "-m", self.dense, "--only", "vision", *by])
        self.refused(1, "experts", "a factored model", by=["bench", "-m", self.dense, "--only", "experts", *by])
        self.refused(1, "start", "a model file", by=["bench", "--arch", "smollm2-135m", "--layers", "1", "--only", "start", *by])
        self.refused(1, "q2_k", "q8_0", by=["bench", "--arch", "smollm2-135m", "--layers", "1", "--type", "q2_k", *by])


if __name__ == "__main__":
    program.main()
