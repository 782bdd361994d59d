"""Hostile model files as a user would meet them: the malformed fixtures, and mutations of good models of every format. No
signal, bounded time and memory, and an error of one line (or a right answer)."""

import json
import os
import pathlib
import random
import resource
import shutil
import struct
import subprocess
import tempfile
import time
import unittest

from support.shoal import ROOT, SHOAL

FIXTURES = ROOT / "tests" / "fixtures"
HOSTILE_SECONDS = 20
HOSTILE_MEMORY = 2 << 30
MUTANT_SECONDS = 5
MUTANT_EXTRA_BYTES = 64 << 20  # beside twice the model's bytes
SLOW = bool(os.environ.get("SHOAL_TEST_ALL"))


class HostileFiles(unittest.TestCase):
    """Every malformed file of the fixtures: no signal, bounded time and memory, an error of one line."""

    def run_bad(self, case):
        path = FIXTURES / "bad" / case["file"]
        with tempfile.TemporaryDirectory() as scratch:
            if case["command"] == "logits":
                words = ["logits", path, "--tokens", "1,2,3", "--json"]
            elif case["command"] == "tokenize":
                text = pathlib.Path(scratch) / "text"
                text.write_text(case.get("text", "hello world"))
                words = ["tokenize", path, "--text-file", text, "--json"]
            else:
                messages = pathlib.Path(scratch) / "messages.json"
                messages.write_text(json.dumps({"messages": [{"role": "user", "content": "hi"}], "add_generation_prompt": True}))
                words = ["render", path, "--messages", messages, "--json"]

            def limit():
                resource.setrlimit(resource.RLIMIT_AS, (HOSTILE_MEMORY, HOSTILE_MEMORY))

            return subprocess.run([str(SHOAL), *map(str, words)], capture_output=True, text=True, stdin=subprocess.DEVNULL,
                                  timeout=HOSTILE_SECONDS, preexec_fn=limit, errors="replace")

    def test_every_malformed_file_gets_one_line(self):
        cases = json.loads((FIXTURES / "bad" / "expect.json").read_text())
        cases = cases if isinstance(cases, list) else cases["cases"]
        self.assertGreater(len(cases), 50)
        wrong = []
        for case in cases:
            done = self.run_bad(case)
            outcome = "ok" if done.returncode == 0 else "error"
            lines = done.stderr.strip().splitlines()
            if not 0 <= done.returncode <= 125 or outcome not in case["accept"]:
                wrong.append(f"{case['file']}: code {done.returncode}, {lines[-1:]}")
            elif outcome == "error" and (len(lines) != 1 or not lines[0].startswith("shoal: ")):
                wrong.append(f"{case['file']}: not one line: {lines}")
        self.assertEqual(wrong, [])


def sizes_below(path):
    return sum(file.stat().st_size for file in path.rglob("*")) if path.is_dir() else path.stat().st_size


def run_measured(words):
    """Runs shoal; returns (wait status, stderr, seconds, peak bytes of memory)."""
    with tempfile.TemporaryFile() as errors:
        started = time.monotonic()
        process = subprocess.Popen([str(SHOAL), *map(str, words)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                   stderr=errors)
        watchdog = started + 4 * MUTANT_SECONDS
        while True:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            if time.monotonic() > watchdog:
                process.kill()
                _, status, usage = os.wait4(process.pid, 0)
                break
            time.sleep(0.002)
        process.returncode = os.waitstatus_to_exitcode(status)
        errors.seek(0)
        return process.returncode, errors.read().decode(errors="replace"), time.monotonic() - started, usage.ru_maxrss * 1024


class Mutations(unittest.TestCase):
    """Good models with a few bytes or fields changed."""

    MODELS = ["models/llama", "models/phi3", "models/gemma3", "models/deepseek_v3", "models/gpt_oss_mxfp4",
              "models/qwen3_next", "mlx/mlx_moe-4bit", "gguf/qwen3_moe-f16.gguf", "gguf/deepseek_v3-bf16.gguf",
              "gguf/gpt_oss_mxfp4-mxfp4.gguf", "quants/llama_q-Q4_K_M/model.gguf", "quants/llama_q-IQ4_XS/model.gguf"]
    MUTANTS = 200 if SLOW else 12
    VALUES = [0, -1, 1, 7, 2**31, 2**63, 1e9, 0.5, 1e-300, "x", None, [], {}, True, [1e308]]

    def mutate_bytes(self, data, generator, begin, end):
        data = bytearray(data)
        kind = generator.randrange(4)
        place = generator.randrange(begin, max(begin + 1, end))
        if kind == 0:
            data[place] ^= 1 << generator.randrange(8)
        elif kind == 1:
            struct.pack_into("<Q", data, min(place, len(data) - 8), generator.choice([0, 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1]))
        elif kind == 2:
            del data[place:]
        else:
            data[place:place] = data[begin:begin + generator.randrange(64)]
        return bytes(data)

    def mutate_json(self, text, generator):
        if generator.randrange(4) == 0:
            return self.mutate_bytes(text.encode(), generator, 0, len(text.encode()))
        value = json.loads(text)
        place = value
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                return b"{}"
            key = generator.choice(keys)
            if isinstance(place[key], (dict, list)) and place[key] and generator.randrange(3):
                place = place[key]
                continue
            if generator.randrange(5) == 0:
                del place[key]
            else:
                place[key] = generator.choice(self.VALUES)
            return json.dumps(value).encode()

    def mutant(self, model, scratch, generator):
        if model.is_file():
            data = model.read_bytes()
            path = scratch / "model.gguf"
            path.write_bytes(self.mutate_bytes(data, generator, 0, min(len(data), 24 << 10)))
            return path
        path = scratch / "model"
        path.mkdir()
        for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json", "model.safetensors"):
            if (model / name).exists():
                (path / name).symlink_to(model / name)
        name = generator.choice(["config.json", "config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"])
        source = model / name
        (path / name).unlink()
        if name == "model.safetensors":
            data = source.read_bytes()
            (path / name).write_bytes(self.mutate_bytes(data, generator, 0, 8 + struct.unpack_from("<Q", data)[0]))
        else:
            (path / name).write_bytes(self.mutate_json(source.read_text(), generator))
        return path

    def commands(self, path, scratch):
        text = scratch / "text"
        text.write_text("Hello  wörld 123\n")
        messages = scratch / "messages.json"
        messages.write_text(json.dumps({"messages": [{"role": "user", "content": "hi"}], "add_generation_prompt": True}))
        yield ["logits", path, "--tokens", "1,2,3", "--json"]
        yield ["tokenize", path, "--text-file", text, "--json"]
        yield ["render", path, "--messages", messages, "--json"]
        yield ["show", path, "--json"]

    def test_mutants_are_refused_or_right_within_time_and_memory(self):
        wrong = []
        for model in self.MODELS:
            model = FIXTURES / model
            allowed = 2 * sizes_below(model) + MUTANT_EXTRA_BYTES
            with tempfile.TemporaryDirectory() as scratch:
                usual = []
                for words in self.commands(model, pathlib.Path(scratch)):
                    code, error, _, peak = run_measured(words)
                    self.assertIn(code, (0, 1), f"{words}: {error}")
                    usual.append(peak)
            for seed in range(self.MUTANTS):
                scratch = pathlib.Path(tempfile.mkdtemp())
                try:
                    path = self.mutant(model, scratch, random.Random(f"{model.name} {seed}"))
                    for words, peak_before in zip(self.commands(path, scratch), usual):
                        code, error, seconds, peak = run_measured(words)
                        lines = error.strip().splitlines()
                        name = f"{model.name} seed {seed} {words[0]}"
                        if not 0 <= code <= 125:
                            wrong.append(f"{name}: code {code}, {lines[-1:]}")
                        elif code != 0 and (len(lines) != 1 or not lines[0].startswith("shoal: ")):
                            wrong.append(f"{name}: not one line: {lines}")
                        if seconds > MUTANT_SECONDS:
                            wrong.append(f"{name}: took {seconds:.1f} s")
                        if peak > peak_before + allowed:
                            wrong.append(f"{name}: {peak >> 20} MiB, usual {peak_before >> 20}")
                finally:
                    shutil.rmtree(scratch, ignore_errors=True)
        self.assertEqual(wrong, [])
