"""The command line as users meet it: numbers against the fixtures, hostile files, mistakes, and their one clear line."""

import json
import pathlib
import signal
import socket
import struct
import tempfile
import unittest

from support.shoal import DEMO_MODEL, ROOT, SHOAL, Node, workers_of, run_shoal, wait_until

FIXTURES = ROOT / "tests" / "fixtures"


def read_f32(path, name):
    """One F32 tensor of a safetensors file as a list of rows."""
    data = path.read_bytes()
    header_bytes = struct.unpack_from("<Q", data)[0]
    entry = json.loads(data[8:8 + header_bytes])[name]
    begin, end = (8 + header_bytes + offset for offset in entry["data_offsets"])
    values = struct.unpack(f"<{(end - begin) // 4}f", data[begin:end])
    columns = entry["shape"][1]
    return [values[i:i + columns] for i in range(0, len(values), columns)]


class Numerics(unittest.TestCase):
    """`shoal logits` against what transformers computed (tests/fixtures/README.md states how close is right)."""

    def check(self, model, expected_directory, flags, maximum, rms, greedy):
        expected = json.loads((expected_directory / "expected.json").read_text())
        std = expected["logit_std"]
        for prompt in expected["prompts"] if isinstance(expected["prompts"], list) else expected["prompts"].values():
            reference = read_f32(expected_directory / "expected.safetensors", prompt["logits_tensor"])
            tokens = ",".join(map(str, prompt["ids"]))
            done = run_shoal("logits", model, "--tokens", tokens, "--positions", "all", "--json", *flags)
            self.assertEqual(done.returncode, 0, done.stderr)
            got = json.loads(done.stdout)["logits"]
            errors = [abs(a - b) / std for row, position in zip(reference, prompt["positions"]) for a, b in zip(got[position], row)]
            self.assertLessEqual(max(errors), maximum, f"{model} {prompt['name']}")
            self.assertLessEqual((sum(e * e for e in errors) / len(errors)) ** 0.5, rms, f"{model} {prompt['name']}")
            if greedy:
                done = run_shoal("logits", model, "--tokens", tokens, "--generate", len(prompt["greedy"]), "--json", *flags)
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertEqual(json.loads(done.stdout)["tokens"], prompt["greedy"], f"{model} {prompt['name']}")

    def test_float_models_match_in_every_token(self):
        for name in ("llama", "llama_tied", "qwen3"):
            directory = FIXTURES / "models" / name
            self.check(directory, directory, ["--kv", "f32"], 2e-3, 1e-3, greedy=True)

    def test_half_precision_cache_stays_close(self):
        for name in ("llama", "qwen3"):
            directory = FIXTURES / "models" / name
            self.check(directory, directory, ["--kv", "f16"], 0.06, 0.01, greedy=False)

    def test_gguf_files_match_in_every_token(self):
        for name in ("llama", "qwen3"):
            self.check(FIXTURES / "gguf" / f"{name}-bf16.gguf", FIXTURES / "models" / name, ["--kv", "f32"], 2e-3, 1e-3, greedy=True)

    def test_quantised_models_stay_close(self):
        for kind in ("Q8_0", "Q4_0", "Q4_K_M", "Q6_K"):
            directory = FIXTURES / "quants" / f"llama_q-{kind}"
            self.check(directory / "model.gguf", directory, ["--kv", "f32"], 0.45, 0.06, greedy=False)

    def test_stages_chunks_and_instruction_sets_change_no_bit(self):
        tokens = ",".join(str(3 + 7 * i % 280) for i in range(70))
        for model in (FIXTURES / "quants" / "llama_q-Q4_K_M" / "model.gguf", FIXTURES / "models" / "llama", DEMO_MODEL):
            base = run_shoal("logits", model, "--tokens", tokens, "--positions", "all", "--json")
            self.assertEqual(base.returncode, 0, base.stderr)
            for flags in (["--stages", 2], ["--stages", 3], ["--chunk", 1], ["--chunk", 7], ["--isa", "portable"], ["--threads", 1]):
                other = run_shoal("logits", model, "--tokens", tokens, "--positions", "all", "--json", *flags)
                self.assertEqual(other.returncode, 0, other.stderr)
                self.assertEqual(other.stdout, base.stdout, f"{model} {flags}")


class Mistakes(unittest.TestCase):
    def refused(self, *words, mentions, code=None, **options):
        done = run_shoal(*words, **options)
        lines = done.stderr.strip().splitlines()
        self.assertNotEqual(done.returncode, 0, f"{words} was accepted")
        self.assertLessEqual(done.returncode, 125)
        if code is not None:
            self.assertEqual(done.returncode, code, lines)
        self.assertEqual(len(lines), 1, f"{words}: {lines}")
        self.assertTrue(lines[0].startswith("shoal: "), lines)
        for part in [mentions] if isinstance(mentions, str) else mentions:
            self.assertIn(part, lines[0])

    def test_unknown_words_name_the_nearest(self):
        self.refused("serv", mentions="serve", code=2)
        self.refused("serve", "--prot", "8000", mentions="--port", code=2)
        self.refused("logits", mentions="PATH", code=2)

    def test_bad_values_are_named(self):
        self.refused("serve", "--port", "99999", mentions="99999")
        self.refused("serve", "--memory", "lots", mentions="lots")
        self.refused("logits", DEMO_MODEL, "--tokens", "1,x", mentions="x")
        self.refused("logits", DEMO_MODEL, "--tokens", "1,999999", mentions="999999")
        self.refused("logits", DEMO_MODEL, "--tokens", "1", "--stages", "99", mentions="99")
        self.refused("logits", DEMO_MODEL, "--tokens", "1", "--isa", "mmx", mentions="mmx")

    def test_missing_files_are_named(self):
        self.refused("logits", "/nowhere/model.gguf", "--tokens", "1", mentions="/nowhere/model.gguf")
        self.refused("tokenize", DEMO_MODEL, "--text-file", "/nowhere/text", mentions="/nowhere/text")

    def test_nobody_answering_says_what_to_start(self):
        for command in (["nodes"], ["ps"], ["place", "shoal-demo"], ["stop", "shoal-demo"]):
            self.refused(*command, "--url", "http://127.0.0.1:9", mentions="shoal serve")

    def test_port_in_use_is_one_line(self):
        with socket.socket() as taken, tempfile.TemporaryDirectory() as data:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            self.refused("serve", "--port", port, "--data", data, "--cluster", "taken", mentions=[str(port), "in use"])

    def test_unwritable_data_directory_is_one_line(self):
        self.refused("serve", "--port", "0", "--data", "/proc/shoal", mentions="/proc/shoal")

    def test_every_command_has_help(self):
        listing = run_shoal("--help")
        self.assertEqual(listing.returncode, 0)
        for command in ("serve", "run", "ps", "nodes", "place", "stop", "logits", "tokenize", "detokenize", "render", "doctor"):
            self.assertIn(command, listing.stdout)
            done = run_shoal(command, "--help")
            self.assertEqual(done.returncode, 0, command)
            self.assertGreater(len(done.stdout), 60, command)

    def test_doctor_reports_as_json(self):
        done = run_shoal("doctor", "--json")
        report = json.loads(done.stdout)
        self.assertGreater(len(report["checks"]), 5)
        for check in report["checks"]:
            self.assertIn(check["status"], ("ok", "warn", "fail"))


class OneNode(unittest.TestCase):
    def test_ctrl_c_stops_at_once_and_leaves_no_worker(self):
        with Node("ctrlc", "--model", "shoal-demo", "--listen", "127.0.0.1", cluster="ctrlc") as node:
            node.wait_healthy()
            self.assertIn("Oslo", node.answer("What is the capital of Norway?", temperature=0, max_tokens=30))
            children = workers_of(node.process.pid)
            self.assertEqual(len(children), 1)
            self.assertEqual(node.stop(signal.SIGINT), 0)
            self.assertFalse(pathlib.Path(f"/proc/{children[0]}").exists(), "the worker outlived its node")

    def test_killed_node_takes_its_worker_along(self):
        with Node("killed", "--model", "shoal-demo", "--listen", "127.0.0.1", cluster="killed") as node:
            node.wait_healthy()
            node.answer("Hi!", max_tokens=3)
            child = workers_of(node.process.pid)[0]
            node.stop(signal.SIGKILL)
            wait_until(lambda: not pathlib.Path(f"/proc/{child}").exists(), 3, "the worker to follow its killed node")

    def test_model_that_does_not_fit_is_one_clear_line(self):
        done = run_shoal("serve", "--port", "0", "--listen", "127.0.0.1", "--cluster", "small", "--memory", "1MiB", "--data",
                         tempfile.mkdtemp(prefix="shoal-small-"), "--model", "shoal-demo")
        self.assertIn(done.returncode, range(1, 126))
        lines = [line for line in done.stderr.splitlines() if line.startswith("shoal: ")]
        self.assertEqual(len(lines), 1, done.stderr)
        self.assertIn("MiB", lines[0])

    def test_run_answers_a_prompt_without_a_server(self):
        done = run_shoal("run", "shoal-demo", "What is the capital of Norway?", "--url", "http://127.0.0.1:9")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("Oslo", done.stdout)


if __name__ == "__main__":
    unittest.main()
