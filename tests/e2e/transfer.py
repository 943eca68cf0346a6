"""--transfer and --shuffle: experts of another model, how much of them is applied, and their control."""
import expert_files
import program

STRANGER = [5, -4, 3, -2, 1, 5, -4, 3]  # sketches of no model of the tests


class Transfer(program.TinyTest):
    def expert(self, name="math", **options):
        return expert_files.tiny(self.folder, name, sketch=STRANGER, **options)

    def deeper(self):
        """An expert of a model with one layer more."""
        def add_layer(tensors):
            for name, values in list(tensors.items()):
                if ".layers.1." in name:
                    tensors[name.replace(".layers.1.", ".layers.2.")] = values

        return self.expert("deeper", edit=add_layer)

    def score(self, expert, *options):
        return self.ok_json("score", "-m", self.factored, "--expert", expert, "--prompt", "Hello", "--answer", " there, world", *options)

    def test_report(self):
        expert = self.deeper()
        self.refused(1, "model.layers.2.", "does not have", by=["score", "-m", self.factored, "--expert", expert, "--prompt", "a", "--answer", "b"])
        for command in [["score", "--prompt", "Hello", "--answer", " there"], ["ask", "-n", "2", "Hello"]]:
            by = [command[0], "-m", self.factored, "--expert", expert, "--transfer", *command[1:]]
            done = self.ok(*by, "--json")
            report, = done.json()["transfer"]
            self.assertEqual((report["expert"], report["matrices"], report["by_name"], report["by_shape"]), ("deeper", 21, 14, 14))
            self.assertEqual((report["values"], report["shuffle"]), (2 * sum(expert_files.RANKS.values()), None))
            self.assertLess(abs(report["cosine"]), 0.9)
            self.assertEqual({entry["matrix"] for entry in report["left_out"]}, {f"model.layers.2.{kind}" for kind in expert_files.RANKS})
            self.assertEqual({entry["reason"] for entry in report["left_out"]}, {"the model has no such matrix"})
            for words in ["warning", "another model", "14 of 21 matrices are applied", "left out: model.layers.2.", "and 6 more"]:
                self.assertIn(words, done.err)
        self.assertIsNone(self.ok_json("score", "-m", self.factored, "--prompt", "a", "--answer", "b")["transfer"])

    def test_layers_that_are_there(self):
        """An expert for more layers does what its layers that are there do."""
        deeper, math = self.score(self.deeper(), "--transfer"), self.score(self.expert(), "--transfer")
        self.assertEqual(deeper["logprobs"], math["logprobs"])

    def test_shuffle(self):
        expert = self.expert()
        ordered, five, again, six = (self.score(expert, "--transfer", *options) for options in [[], ["--shuffle", "5"], ["--shuffle=5"], ["--shuffle", "6"]])
        self.assertEqual(five["logprobs"], again["logprobs"])
        self.assertEqual(five["transfer"][0]["shuffle"], 5)
        self.assertEqual(len({tuple(result["logprobs"]) for result in [ordered, five, six]}), 3)

    def test_eval_and_chat(self):
        """Both experts of a folder are told of; a run with another order is another run."""
        self.expert("code", seed=2), self.expert()
        data = self.write("data.jsonl", '{"prompt": "Hello", "answer": "x"}\n')
        by = ["eval", "-m", self.factored, "--task", "label", "--data", data, "--experts", self.folder, "--expert", "math", "--strategy", "fixed",
              "-n", "2", "--transfer", "-o", self.path("run")]
        report = self.ok_json(*by, "--shuffle", "1")["transfer"]
        self.assertEqual([(one["expert"], one["by_shape"], one["shuffle"]) for one in report], [("code", 14, 1), ("math", 14, 1)])
        self.refused(1, "other settings", "experts", by=[*by, "--shuffle", "2"])
        told = self.ok("chat", "-m", self.factored, "--experts", self.folder, "--expert", "math", "--transfer", "--shuffle", "1", "-n", "2", text="Hello\n").err
        self.assertIn("transfer of math, shuffled by seed 1: 14 of 14 matrices are applied", told)

    def test_merge(self):
        told = self.ok("merge", "-m", self.factored, "--expert", self.deeper(), "--transfer", "-o", self.path("merged.gguf")).err
        self.assertIn("transfer of deeper: 14 of 21 matrices are applied", told)

    def test_refused(self):
        score = ["score", "-m", self.factored, "--prompt", "a", "--answer", "b"]
        expert = self.expert()
        self.refused(2, "--shuffle goes with --transfer", by=[*score, "--expert", expert, "--shuffle", "1"])
        self.refused(2, "--shuffle is a whole number", by=[*score, "--expert", expert, "--transfer", "--shuffle", "x"])
        self.refused(2, "give --expert", by=[*score, "--transfer"])
        self.refused(2, "give --expert", by=["ask", "-m", self.factored, "--transfer", "Hello"])
        short = self.expert("short", ranks=dict(expert_files.RANKS, **{"mlp.up_proj": 63}))
        self.refused(1, "63 values", "rank 64", by=[*score, "--expert", short, "--transfer"])
        foreign = self.expert("foreign", ranks={"mlp.router_proj": 64})
        self.refused(1, "nothing of expert foreign can be transferred", by=[*score, "--expert", foreign, "--transfer"])


if __name__ == "__main__":
    program.main()
