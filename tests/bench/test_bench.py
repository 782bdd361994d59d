"""The benchmarks' tools: synthetic models have the sizes they are said to have, load and give finite logits; reports have
their agreed form. Nothing here judges speed."""

import importlib.machinery
import importlib.util
import json
import math
import pathlib
import subprocess
import sys
import tempfile
import unittest

from support.shoal import ROOT, run_shoal

MAKE_SYNTHETIC = ROOT / "tools" / "make_synthetic"
TINY = ["tiny-llama", "tiny-moe", "tiny-latent"]


def load_script():
    loader = importlib.machinery.SourceFileLoader("make_synthetic", str(MAKE_SYNTHETIC))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    module = importlib.util.module_from_spec(spec)
    sys.modules[loader.name] = module
    sys.dont_write_bytecode = True
    loader.exec_module(module)
    return module


def bytes_of_a_token(script, name):
    """Of the weights that one token reads: all but the other rows of the embedding and the experts that are not chosen."""
    model = script.MODELS[name]
    total = 0
    for tensor in script.tensors_of(model):
        if tensor.name == "token_embd.weight" and not model.tied:
            continue
        total += tensor.size * (model.used / model.experts if "_exps." in tensor.name else 1)
    return total


class SyntheticModels(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.script = load_script()
        cls.scratch = tempfile.TemporaryDirectory()
        cls.folder = pathlib.Path(cls.scratch.name)
        for name in TINY:
            cls.script.write_model(name, cls.folder / f"{name}.gguf", 1)

    @classmethod
    def tearDownClass(cls):
        cls.scratch.cleanup()

    def test_a_token_reads_what_it_reads_of_the_published_models(self):
        megabytes = {"llama-1b-q4_k_m": 799.9, "llama-1b-q8_0": 1313.3, "llama-1b-q4_0": 763.1, "moe-q4_k_m": 302.1}
        self.assertEqual({name: round(bytes_of_a_token(self.script, name) / 1e6, 1) for name in megabytes}, megabytes)

    def test_logits_are_finite_and_tell_tokens_apart(self):
        for name in TINY:
            path = self.folder / f"{name}.gguf"
            done = run_shoal("logits", path, "--tokens", "1,2,3,400", "--json")
            self.assertEqual(done.returncode, 0, done.stderr)
            rows = json.loads(done.stdout)["logits"]
            self.assertEqual([len(row) for row in rows], [512] * 4, name)
            for row in rows:
                self.assertTrue(all(value is not None and math.isfinite(value) and abs(value) < 1e3 for value in row), name)
                mean = sum(row) / len(row)
                self.assertGreater(sum((value - mean) ** 2 for value in row) / len(row), 0.01, name)

    def test_the_tokenizer_knows_every_byte(self):
        text = self.folder / "text"
        text.write_text("ab é")
        done = run_shoal("tokenize", self.folder / "tiny-llama.gguf", "--text-file", text, "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(json.loads(done.stdout), {"ids": [256, 32, 0xC3, 0xA9]})

    def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(self):
        first = (self.folder / "tiny-moe.gguf").read_bytes()
        contents = []
        for seed in (1, 2):
            path = self.folder / f"seed-{seed}.gguf"
            done = subprocess.run([MAKE_SYNTHETIC, "tiny-moe", path, "--seed", str(seed)], capture_output=True, text=True)
            self.assertEqual(done.returncode, 0, done.stderr)
            contents.append(path.read_bytes())
        self.assertEqual(contents[0], first)
        self.assertEqual(len(contents[1]), len(first))
        self.assertNotEqual(contents[1], first)


class Reports(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.scratch = tempfile.TemporaryDirectory()
        cls.model = pathlib.Path(cls.scratch.name) / "tiny-moe.gguf"
        subprocess.run([MAKE_SYNTHETIC, "tiny-moe", cls.model], check=True)

    @classmethod
    def tearDownClass(cls):
        cls.scratch.cleanup()

    def report(self, *words):
        done = subprocess.run([ROOT / "bench" / "run", *words, self.model, "--short", "--json"], capture_output=True, text=True,
                              timeout=600)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)

    def check_figures(self, report):
        self.assertIsInstance(report["cpu"], str)
        self.assertGreater(len(report["figures"]), 0)
        for entry in report["figures"]:
            self.assertEqual(set(entry), {"name", "value", "unit", "limit", "goal", "met"})
            self.assertIsInstance(entry["name"], str)
            self.assertIsInstance(entry["unit"], str)
            self.assertGreater(entry["value"], 0, entry)
            self.assertTrue(entry["limit"] is None or entry["limit"] > 0, entry)
            if entry["goal"] is None:
                self.assertIsNone(entry["met"], entry)
            else:
                self.assertIs(entry["met"], entry["value"] >= entry["goal"], entry)

    def test_figures_have_the_agreed_form(self):
        for name in ("decode", "prefill", "batch", "context"):
            with self.subTest(name):
                report = self.report(name)
                self.assertEqual(set(report), {"cpu", "figures"})
                self.check_figures(report)
                self.assertTrue(any(entry["goal"] for entry in report["figures"]))

    def test_a_profile_names_the_ops_of_every_layer(self):
        report = self.report("decode", "--profile")
        self.check_figures(report)
        ops = {}
        for row in report["profile"]:
            ops.setdefault(row["profile"], {})[row["op"]] = row
        self.assertEqual(set(ops), {"decode tiny-moe, batch 1", "prefill 64 of tiny-moe"})
        for title, rows in ops.items():
            for op in ("mixer: attend", "feed-forward: experts", "feed-forward: route"):
                self.assertEqual(len(rows[op]["microseconds"]), 2, (title, op))
            self.assertEqual(len(rows["begin: embed"]["microseconds"]), 1, title)
            self.assertAlmostEqual(sum(row["share"] for row in rows.values()), 1, delta=0.01, msg=title)

    def test_unknown_benchmarks_are_refused(self):
        done = subprocess.run([ROOT / "bench" / "run", "nothing"], capture_output=True, text=True)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("nothing", done.stderr)


if __name__ == "__main__":
    unittest.main()
