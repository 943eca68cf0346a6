"""Files that are missing, damaged, of another kind or in the way: a clear message, status 1, nothing lost, no crash."""
import os
import unittest

import expert_files
import program
from program import zsigma


class WrongModels(program.TinyTest):
    """Every command that opens a model says what is wrong with it."""

    def commands(self, model):
        return [["ask", "-m", model, "Hello"], ["chat", "-m", model], ["score", "-m", model, "--prompt", "a", "--answer", "b"],
                ["tokenize", "-m", model], ["factor", model, "-o", self.path("out.gguf")]]

    def refused_by_all(self, model, *words):
        for by in self.commands(model):
            self.refused(1, model, *words, by=by)
        self.assertFalse(os.path.exists(self.path("out.gguf")))

    def test_missing(self):
        self.refused_by_all(self.path("none.gguf"), "No such file")

    def test_directory(self):
        for by in self.commands(self.folder):
            self.refused(1, self.folder, "tokenizer.json" if by[0] == "tokenize" else "config.json", by=by)

    def test_device(self):
        self.refused_by_all("/dev/null", "not a regular file")

    def test_empty(self):
        self.refused_by_all(self.write("empty.gguf", b""))

    def test_another_kind(self):
        self.refused_by_all(self.write("text.gguf", "This is a letter, not a model.\n" * 100), "no GGUF file")

    @unittest.skipIf(os.geteuid() == 0, "root may read everything")
    def test_unreadable(self):
        model = self.write("secret.gguf", b"GGUF")
        os.chmod(model, 0)
        self.refused_by_all(model, "Permission denied")

    def test_truncated_anywhere(self):
        with open(self.dense, "rb") as file:
            whole = file.read()
        cuts = [1, 4, 8, 23, 24, 25, 40, 100, 1000, 4000, len(whole) // 2, len(whole) - 1]
        for cut in cuts:
            model = self.write("cut.gguf", whole[:cut])
            result = self.refused(1, model, by=["factor", model, "-o", self.path("out.gguf")])
            self.assertEqual(os.listdir(self.folder), ["cut.gguf"], result.err)

    def test_absurd_counts(self):
        with open(self.dense, "rb") as file:
            whole = file.read()
        for at in [8, 16]:  # numbers of tensors and of keys
            for value in [b"\xff" * 8, b"\xff\xff\xff\x7f" + bytes(4)]:
                model = self.write("absurd.gguf", whole[:at] + value + whole[at + 8:])
                self.refused(1, model, by=["factor", model, "-o", self.path("out.gguf")])

    def test_not_a_number_in_a_weight(self):
        with open(self.dense, "rb") as file:
            whole = bytearray(file.read())
        whole[-4:] = b"\x00\x00\xc0\x7f"  # the last value of the last tensor, output_norm.weight
        model = self.write("nan.gguf", bytes(whole))
        self.refused(1, "output_norm.weight", by=["score", "-m", model, "--prompt", "a", "--answer", "b"])


class WrongExperts(program.TinyTest):
    def refused_expert(self, file, *words, **options):
        return self.refused(1, *words, by=["ask", "-m", self.factored, "--expert", file, "-n", "1", "Hello"], **options)

    def test_missing_file_and_name(self):
        self.refused_expert(self.path("none.safetensors"), "there is no file", "none.safetensors", "a name goes with --experts DIR")
        expert_files.tiny(self.folder, "math")
        self.refused(1, "holds no expert named 'maths' (it has math), and there is no such file", by=["ask", "-m", self.factored, "--experts", self.folder, "--expert", "maths", "Hello"])

    def test_another_kind(self):
        self.refused_expert(self.write("text.safetensors", "no expert" * 100), "text.safetensors")
        self.refused_expert(self.dense, self.dense)
        file = expert_files.save(self.path("bare.safetensors"), {"x.z": [1.0]}, {"format": "pt"})
        self.refused_expert(file, "no expert file", "format=zsigma-expert")

    def test_truncated(self):
        with open(expert_files.tiny(self.folder, "math"), "rb") as file:
            whole = file.read()
        for cut in [0, 7, 8, 100, len(whole) // 2, len(whole) - 1]:
            file = self.write("cut.safetensors", whole[:cut])
            self.refused(1, file, by=["expert", "show", file])

    def test_of_another_model(self):
        real = os.path.join(program.EXPERTS, "math.safetensors")
        self.refused_expert(real, "expert math", "576 values", "rank 64")
        extra = dict(expert_files.RANKS, **{"mlp.router_proj": 64})
        self.refused_expert(expert_files.tiny(self.folder, "wide", ranks=extra), "mlp.router_proj", "does not have")
        ranks = dict(expert_files.RANKS, **{"mlp.up_proj": 63})
        self.refused_expert(expert_files.tiny(self.folder, "short", ranks=ranks), "63 values", "rank 64")

    def test_of_another_base_with_the_same_shapes(self):
        file = expert_files.tiny(self.folder, "stranger", sketch=[5, -4, 3, -2, 1, 5, -4, 3])
        self.refused_expert(file, "another model", "--transfer")
        accepted = self.ok("ask", "-m", self.factored, "--expert", file, "--transfer", "-n", "1", "Hello")
        self.assertIn("warning", accepted.err)
        self.assertIn("another model", accepted.err)

    def test_without_sketches_is_accepted_with_a_warning(self):
        result = self.ok("ask", "-m", self.factored, "--expert", expert_files.tiny(self.folder, "plain"), "-n", "1", "Hello")
        self.assertIn("cannot be checked", result.err)
        plain = os.path.join(self.folder, "plain.safetensors")
        merged = self.ok("merge", "-m", self.factored, "--expert", plain, "-o", self.path("merged.gguf"))
        self.assertIn("warning", merged.err)
        self.assertIn("cannot be checked", merged.err)
        self.assertNotIn("cannot be checked", self.ok("merge", "-m", self.factored, "-o", self.path("base.gguf")).err)

    def test_not_a_number(self):
        def spoil(tensors):
            tensors["model.layers.1.mlp.up_proj.z"][5] = float("nan")

        self.refused_expert(expert_files.tiny(self.folder, "broken", edit=spoil), "model.layers.1.mlp.up_proj.z", "NaN", "element 5")

    def test_on_a_dense_model(self):
        self.refused(1, "dense model", "zsigma factor", by=["ask", "-m", self.dense, "--expert", expert_files.tiny(self.folder, "math"), "Hello"])

    def test_folders(self):
        by = ["ask", "-m", self.factored, "-n", "1", "Hello", "--experts"]
        self.refused(1, "No such file", by=[*by, self.path("none")])
        self.refused(1, "holds no experts", by=[*by, self.folder])
        self.refused(1, "Not a directory", by=[*by, self.dense])
        expert_files.tiny(self.folder, "a")
        os.rename(self.path("a.safetensors"), self.path("b.safetensors"))
        expert_files.tiny(self.folder, "a")
        self.refused(1, "another expert named a", by=[*by, self.folder])


class Outputs(program.TinyTest):
    def factor(self, output, *more):
        return ["factor", self.dense, "-o", output, *more]

    def test_existing_output_is_kept_unless_forced(self):
        output = self.write("out.gguf", "precious")
        self.refused(1, output, "exists", "--force", by=self.factor(output))
        with open(output, "rb") as file:
            self.assertEqual(file.read(), b"precious")
        self.ok(*self.factor(output, "--force"))
        self.assertGreater(os.path.getsize(output), 100000)
        self.assertEqual(os.listdir(self.folder), ["out.gguf"])

    def test_input_as_output(self):
        with open(self.dense, "rb") as file:
            model = self.write("model.gguf", file.read())
        self.refused(1, "input and output at once", by=["factor", model, "-o", model, "--force"])

    def test_output_that_is_no_file(self):
        """Told before the work, not after it."""
        for output, kind in [(self.folder, "a folder"), ("/dev/null", "no regular file")]:
            for more in [[], ["--force"]]:
                self.refused(1, f"cannot write {output}: it is {kind}", by=self.factor(output, *more))
        self.assertFalse(os.path.exists(self.folder + ".partial") or os.path.exists("/dev/null.partial"))

    def test_folder_that_does_not_exist(self):
        self.refused(1, self.path("none"), "No such file", by=self.factor(self.path("none/out.gguf")))

    def test_factoring_twice(self):
        self.refused(1, "factored already", by=["factor", self.factored, "-o", self.path("out.gguf")])

    def test_full_disk(self):
        """No file may grow past 64 KiB here, which fails as a full disk does once SIGXFSZ is ignored."""
        import resource

        def limit():
            resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))

        result = zsigma(*self.factor(self.path("out.gguf")), preexec_fn=limit, restore_signals=False)
        self.assertEqual(result.status, 1, result.err)
        self.assertIn("out.gguf", result.err)
        self.assertFalse(os.path.exists(self.path("out.gguf")))
        self.ok(*self.factor(self.path("out.gguf")))  # with room again, the work goes on

    def test_full_standard_output(self):
        for by in [["devices"], ["devices", "--json"], ["tokenize", "-m", self.dense], ["--version"],
                   ["ask", "-m", self.dense, "-n", "3", "Hello"], ["ask", "-m", self.dense, "-n", "3", "Hello", "--json"],
                   ["score", "-m", self.dense, "--prompt", "a", "--answer", "b"]]:
            with open("/dev/full", "wb") as full:
                result = zsigma(*by, stdout=full)
            self.assertEqual(result.status, 1, f"{by}: {result.err}")
            self.assertIn("standard output", result.err)


if __name__ == "__main__":
    program.main()
