"""Devices as Vulkan shows them: choice, tiers, missing drivers and loaders, the cache, the validation layer."""
import glob
import json
import os
import unittest

import program
from program import zsigma

SWIFTSHADER = "/usr/lib/chromium/vk_swiftshader_icd.json"
LAVAPIPE = (glob.glob("/usr/share/vulkan/icd.d/lvp_icd*.json") or [""])[0]
LAYERS = os.environ.get("ZSIGMA_LAYERS")  # the folder of its manifest, where CTest found the validation layer


class List(program.TinyTest):
    def test_json(self):
        devices = self.ok_json("devices")
        self.assertGreater(len(devices), 0)
        for device in devices:
            for name in ["index", "name", "uuid", "type", "driver", "vulkan", "memory_bytes", "free_bytes", "usable", "tiers_offered", "tiers"]:
                self.assertIn(name, device)
            self.assertRegex(device["uuid"], "^[0-9a-f]{32}$")
            self.assertLessEqual(set(device["tiers"]), set(device["tiers_offered"]))

    def test_text_names_what_json_does(self):
        out = self.ok("devices").out
        for device in self.ok_json("devices"):
            self.assertIn(device["name"], out)
            self.assertIn(device["uuid"], out)

    @unittest.skipUnless(os.path.exists(LAVAPIPE), "needs lavapipe")
    def test_lavapipe_takes_registers_whole_unless_told_otherwise(self):
        with open("/proc/cpuinfo") as file:
            wide = {"avx512f", "avx512bw", "avx512dq"} <= set(file.read().split())
        for width, subgroup in [(None, 16 if wide else None), ("128", 4)]:
            env = program.environment(VK_DRIVER_FILES=LAVAPIPE, LP_NATIVE_VECTOR_WIDTH=width)
            sizes = {device["subgroup_size"] for device in self.ok_json("devices", env=env)}
            self.assertTrue(subgroup is None or sizes == {subgroup}, sizes)

    def test_tier_strict_leaves_none_above_it(self):
        for device in self.ok_json("devices", "--tier", "strict"):
            self.assertEqual(device["tiers"], [])


class Choice(program.TinyTest):
    def ask(self, device, env=None):
        return self.ok_json("ask", "-m", self.factored, "-n", "1", "Hello", "--device", device, env=env)["device"]

    def test_by_index_uuid_and_part_of_the_name(self):
        for device in (d for d in self.ok_json("devices") if d["usable"]):
            for key in [str(device["index"]), device["uuid"], device["uuid"].upper(), device["name"], device["name"][:5].upper()]:
                self.assertEqual(self.ask(key), device["name"])

    def test_a_device_that_is_not_there(self):
        name = self.ok_json("devices")[0]["name"]
        for wanted in ["Voodoo 2", "99", "ab" * 16]:
            self.refused(1, f'no device "{wanted}"; there ', f"[0] {name}", by=["ask", "-m", self.factored, "--device", wanted, "Hello"])

    @unittest.skipUnless(os.path.exists(SWIFTSHADER) and os.path.exists(LAVAPIPE), "needs lavapipe and SwiftShader")
    def test_among_two_drivers(self):
        env = program.environment(VK_DRIVER_FILES=f"{SWIFTSHADER}:{LAVAPIPE}")
        devices = self.ok_json("devices", env=env)
        self.assertEqual(len(devices), 2)
        for device in devices:
            for key in [str(device["index"]), device["uuid"], device["name"]]:
                self.assertEqual(self.ask(key, env), device["name"])

    def test_a_cpu_is_used_only_with_a_warning_or_by_name(self):
        devices = [d for d in self.ok_json("devices") if d["usable"]]
        if any(d["type"] != "cpu" for d in devices):
            self.skipTest("there is a GPU")
        self.assertIn("running on the CPU", self.ok("ask", "-m", self.factored, "-n", "1", "Hello").err)
        self.assertNotIn("warning", self.ok("ask", "-m", self.factored, "-n", "1", "Hello", "--device", "0").err)


class Tiers(program.TinyTest):
    def test_every_tier_gives_the_same_answer(self):
        by = ["score", "-m", self.factored, "--prompt", "the man", "--answer", " is on the list", "--precision", "exact", "--tier"]
        strict = self.ok_json(*by, "strict")
        for tier in ["subgroup", "storage", "half", "dot", "matrix", "matrix2", "chain"]:
            for a, b in zip(strict["logprobs"], self.ok_json(*by, tier)["logprobs"]):
                self.assertAlmostEqual(a, b, delta=1e-3)

    @unittest.skipUnless(os.path.exists(SWIFTSHADER), "needs SwiftShader, a driver with the baseline alone")
    def test_driver_with_the_baseline_alone(self):
        by = ["score", "-m", self.factored, "--prompt", "the man", "--answer", " is on the list", "--precision", "exact"]
        here, there = self.ok_json(*by), self.ok_json(*by, env=program.environment(VK_DRIVER_FILES=SWIFTSHADER))
        for a, b in zip(here["logprobs"], there["logprobs"]):
            self.assertAlmostEqual(a, b, delta=1e-3)


class Missing(program.TinyTest):
    def commands(self):
        return [["devices"], ["devices", "--json"], ["ask", "-m", self.factored, "Hello"],
                ["score", "-m", self.factored, "--prompt", "a", "--answer", "b"]]

    def test_no_driver(self):
        for by in self.commands():
            self.refused(1, "no Vulkan driver found", "mesa-vulkan-drivers", by=by, env=program.environment(VK_DRIVER_FILES="/nonexistent"))

    def test_no_loader(self):
        for name in ["libvulkan.so.1", "libvulkan.so"]:
            self.write(name, "not a library")
        for by in self.commands():
            self.refused(1, "no Vulkan loader", "libvulkan1", by=by, env=program.environment(LD_LIBRARY_PATH=self.folder))

    def test_driver_that_is_none(self):
        driver = self.write("icd.json", json.dumps({"file_format_version": "1.0.0", "ICD": {"library_path": "/nonexistent.so", "api_version": "1.3.0"}}))
        for by in self.commands():
            self.refused(1, "Vulkan driver", by=by, env=program.environment(VK_DRIVER_FILES=driver))


class Cache(program.TinyTest):
    def score(self, **variables):
        return self.ok_json("score", "-m", self.factored, "--prompt", "a", "--answer", "b", env=program.environment(**variables))["sum"]

    def files(self):
        folder = os.path.join(self.path("cache"), "zsigma")
        return sorted(os.path.join(folder, name) for name in os.listdir(folder))

    def test_files_are_made_once_and_used_again(self):
        first = self.score(XDG_CACHE_HOME=self.path("cache"))
        files = self.files()
        self.assertEqual([os.path.splitext(name)[1] for name in files], [".pipelines", ".selftest"])
        self.assertEqual(self.score(XDG_CACHE_HOME=self.path("cache")), first)
        self.assertEqual(self.files(), files)

    def test_damaged_files_are_dropped_and_made_anew(self):
        first = self.score(XDG_CACHE_HOME=self.path("cache"))
        sizes = [os.path.getsize(name) for name in self.files()]
        for damage in [lambda data: b"", lambda data: b"x" * len(data), lambda data: data[: len(data) // 2], lambda data: data + b"more",
                       lambda data: data[:-1] + bytes([data[-1] ^ 1])]:
            for name in self.files():
                with open(name, "rb") as file:
                    data = file.read()
                with open(name, "wb") as file:
                    file.write(damage(data))
            self.assertEqual(self.score(XDG_CACHE_HOME=self.path("cache")), first)
            for name, size in zip(self.files(), sizes):
                self.assertAlmostEqual(os.path.getsize(name), size, delta=size * 0.05 + 64, msg=name)

    def test_two_programs_at_once(self):
        env = program.environment(XDG_CACHE_HOME=self.path("cache"))
        by = ["score", "-m", self.factored, "--prompt", "a", "--answer", "b", "--json"]
        results = [program.finish(process) for process in [program.start(*by, env=env) for _ in range(4)]]
        self.assertEqual([result.status for result in results], [0] * 4, [result.err for result in results])
        self.assertEqual(len({result.json()["sum"] for result in results}), 1)
        self.assertEqual(len(self.files()), 2)  # and no temporary file is left

    def test_folders_that_cannot_be_used(self):
        blocked = self.write("file", "")
        expected = self.score()
        for variables in [{"XDG_CACHE_HOME": blocked}, {"XDG_CACHE_HOME": "/proc/none"}, {"XDG_CACHE_HOME": None, "HOME": None},
                          {"XDG_CACHE_HOME": ""}, {"XDG_CACHE_HOME": None, "HOME": self.folder}]:
            variables.setdefault("HOME", self.folder)
            self.assertEqual(self.score(**variables), expected)
        self.assertTrue(os.path.isdir(self.path(".cache/zsigma")))


class Validation(program.TinyTest):
    def test_clean(self):
        if not LAYERS:
            self.skipTest("the validation layer is not installed")
        env = program.environment(VK_LAYER_PATH=LAYERS)
        for by in [["ask", "-n", "3", "Hello"], ["score", "--prompt", "a", "--answer", "the hat"]]:
            result = self.ok(*by, "-m", self.factored, "--validate", env=env)
            self.assertNotIn("error", result.err)

    def test_absent(self):
        env = program.environment(VK_LAYER_PATH=self.folder, VK_ADD_LAYER_PATH=None)
        self.refused(1, "VK_LAYER_KHRONOS_validation is not installed", by=["ask", "-m", self.factored, "--validate", "Hello"], env=env)


if __name__ == "__main__":
    program.main()
