"""Models as users meet them: what `show` says of each, and what every door says of one that cannot run."""

import json
import pathlib
import shutil
import tempfile
import unittest

from support.shoal import DEMO_MODEL, ROOT, Node, run_shoal

FIXTURES = ROOT / "tests" / "fixtures"


def changed_model(directory, name, **fields):
    """A copy of a fixture with other fields in its config.json (weights are linked)."""
    source, target = FIXTURES / "models" / "llama", pathlib.Path(directory) / name
    target.mkdir()
    for file in source.iterdir():
        if file.name != "config.json":
            (target / file.name).symlink_to(file)
    config = json.loads((source / "config.json").read_text())
    (target / "config.json").write_text(json.dumps({**config, **fields}))
    return target


class Show(unittest.TestCase):
    def summary(self, model, **options):
        done = run_shoal("show", model, "--json", **options)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stderr, "")
        return json.loads(done.stdout)

    def test_a_model_is_shown_by_name_and_by_path_without_a_node(self):
        by_name, by_path = self.summary("shoal-demo"), self.summary(DEMO_MODEL)
        self.assertEqual(by_name["name"], "shoal-demo")
        self.assertEqual({**by_name, "name": "", "files": []}, {**by_path, "name": "", "files": []})
        self.assertEqual(by_path["files"], [{"path": str(DEMO_MODEL), "bytes": DEMO_MODEL.stat().st_size}])
        self.assertEqual(by_path["format"], "gguf")
        self.assertEqual(by_path["chat_templates"], ["default"])
        self.assertEqual(sum(kind["layers"] for kind in by_path["mixers"]), by_path["layers"])
        self.assertAlmostEqual(sum(kind["share"] for kind in by_path["tensor_types"]), 1)

    def test_people_get_the_same_in_words(self):
        done = run_shoal("show", "shoal-demo")
        self.assertEqual(done.returncode, 0, done.stderr)
        summary = self.summary("shoal-demo")
        for word in ("shoal-demo", summary["architecture"], "Q8_0", "heads of", "a token", "default", "GGUF", str(summary["context_tokens"])):
            self.assertIn(word, done.stdout)

    def test_every_fixture_is_shown(self):
        for case in json.loads((FIXTURES / "manifest.json").read_text()):
            with self.subTest(case["name"]):
                summary = self.summary(FIXTURES / case["path"])
                for part in ("mixers", "feed_forwards"):
                    self.assertEqual(sum(kind["layers"] for kind in summary[part]), summary["layers"])
                self.assertEqual(case["moe"], any(kind["kind"] == "mixture" for kind in summary["feed_forwards"]))
                self.assertEqual(case["moe"], summary["active_parameters"] < summary["parameters"])
                self.assertEqual(summary["state_bytes_per_sequence"] > 0, any(kind["kind"] == "delta_net" for kind in summary["mixers"]))
                self.assertGreater(summary["kv_bytes_per_token"]["f16"], summary["kv_bytes_per_token"]["q8"])
                self.assertGreater(summary["tokenizer"]["vocabulary_size"], 0)
                done = run_shoal("show", FIXTURES / case["path"])
                self.assertEqual(done.returncode, 0, done.stderr)

    def test_mistakes_are_one_line(self):
        for words, mentions in ((["shoal-dmeo"], "shoal-demo"), (["/nowhere/model.gguf"], "/nowhere/model.gguf"), ([FIXTURES], "fixtures")):
            done = run_shoal("show", *words)
            self.assertEqual(done.returncode, 1, words)
            self.assertEqual(done.stdout, "")
            lines = done.stderr.splitlines()
            self.assertEqual(len(lines), 1, lines)
            self.assertTrue(lines[0].startswith("shoal: "), lines)
            self.assertIn(mentions, lines[0])


class Logits(unittest.TestCase):
    def numbers(self, *flags):
        done = run_shoal("logits", FIXTURES / "models" / "llama", "--json", *flags)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)

    def test_the_last_position_is_the_last_of_all(self):
        tokens = ",".join(str(3 + 7 * i % 280) for i in range(70))
        every = self.numbers("--tokens", tokens, "--positions", "all")["logits"]
        for flags in ([], ["--chunk", "1"], ["--chunk", "69"], ["--stages", "3"]):
            self.assertEqual(self.numbers("--tokens", tokens, "--positions", "last", *flags)["logits"], every[-1:])
        self.assertEqual(self.numbers("--tokens", "5", "--positions", "last"), self.numbers("--tokens", "5"))

    def test_a_prompt_of_more_rows_than_a_step_may_have(self):
        tokens = ",".join(str(3 + 7 * i % 280) for i in range(9000))
        small = self.numbers("--tokens", tokens, "--generate", "3", "--chunk", "100")
        self.assertEqual(len(small["tokens"]), 3)
        self.assertEqual(small, self.numbers("--tokens", tokens, "--generate", "3", "--chunk", "8192"))

    def test_kernels_and_cache_types_that_are_not_here_are_one_line(self):
        for flags, mentions in ((["--isa", "neon"], "neon"), (["--isa", "mmx"], "mmx"), (["--kv", "q3"], "q3"), (["--chunk", "9000"], "9000"),
                                (["--positions", "first"], "first"), (["--stages", "0"], "0")):
            done = run_shoal("logits", DEMO_MODEL, "--tokens", "1", *flags)
            self.assertIn(done.returncode, range(1, 126), flags)
            self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
            self.assertIn(mentions, done.stderr)


class Unsupported(unittest.TestCase):
    """The architecture, the field and its value reach the user, whichever door the model came to."""

    def setUp(self):
        self.scratch = tempfile.mkdtemp(prefix="shoal-models-")
        self.addCleanup(shutil.rmtree, self.scratch)
        self.cases = [(changed_model(self.scratch, "other-kind", model_type="mammoth"), ["mammoth"]),
                      (changed_model(self.scratch, "other-field", hidden_act="cube"), ["hidden_act", "cube"]),
                      (changed_model(self.scratch, "other-rope", rope_scaling={"rope_type": "spiral", "factor": 2.0}), ["spiral"])]

    def check(self, text, words):
        for word in words:
            self.assertIn(word, text)

    def one_line(self, done, words):
        self.assertIn(done.returncode, range(1, 126), done.stdout)
        lines = [line for line in done.stderr.splitlines() if line.startswith("shoal: ")]
        self.assertEqual(len(lines), 1, done.stderr)
        self.check(lines[0], words)

    def test_commands_without_a_node(self):
        for model, words in self.cases:
            self.one_line(run_shoal("show", model), words)
            self.one_line(run_shoal("logits", model, "--tokens", "1"), words)
            self.one_line(run_shoal("run", model, "Hi", "--url", "http://127.0.0.1:9"), words)

    def test_serve(self):
        model, words = self.cases[0]
        self.one_line(run_shoal("serve", "--port", "0", "--listen", "127.0.0.1", "--cluster", "unsupported", "--data",
                                tempfile.mkdtemp(dir=self.scratch), "--model", model), words)

    def test_a_node(self):
        with Node("unsupported", "--listen", "127.0.0.1", cluster="unsupported") as node:
            node.wait_healthy()
            url = ["--url", f"http://127.0.0.1:{node.port}"]
            for model, words in self.cases:
                self.one_line(run_shoal("place", model, *url), words)
                self.one_line(run_shoal("place", model, "--preview", *url), words)
                self.one_line(run_shoal("run", model, "Hi", *url), words)
                for status, body in (node.place(str(model)), node.chat("Hi", model=str(model))):
                    self.assertIn(status, range(400, 600))
                    self.check(body["error"]["message"], words)


if __name__ == "__main__":
    unittest.main()
