"""Two nodes on this machine serve a model of every kind of layer: the same tokens as `shoal logits` gives alone, with
requests that share a batch, a prefix, or neither, and with more of them than a recurrent model has states."""

import concurrent.futures
import contextlib
import json
import unittest

from support.shoal import ROOT, Node, run_shoal, wait_until

MODELS = ROOT / "tests" / "fixtures" / "models"
GENERATED = 12


def prompts_of(model):
    expected = json.loads((model / "expected.json").read_text())
    long = max((prompt["ids"] for prompt in expected["prompts"]), key=len)
    # Prefixes of each other, on both sides of the page size and of longrope's limit.
    return [long[:length] for length in (1, 20, 33, 64, 65, 97, len(long))]


def alone(model, prompt):
    done = run_shoal("logits", model, "--tokens", ",".join(map(str, prompt)), "--generate", GENERATED, "--kv", "f16", "--json")
    assert done.returncode == 0, done.stderr
    words = ",".join(map(str, json.loads(done.stdout)["tokens"]))
    done = run_shoal("detokenize", model, "--tokens", words, "--skip-special", "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["text"]


class Kinds(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        stack = contextlib.ExitStack()
        cls.addClassCleanup(stack.close)
        cls.nodes = [stack.enter_context(Node(name, "--listen", "127.0.0.1", cluster="kinds")) for name in ("ada", "bob")]
        for node in cls.nodes:
            node.wait_healthy()
        for node in cls.nodes:
            wait_until(lambda: len(node.node_names()) == 2, 20, "two nodes")

    def serve(self, name):
        model = MODELS / name
        status, instance = self.nodes[0].place(str(model), min_nodes=2)
        self.assertEqual(status, 200, instance)
        self.assertEqual(len(instance["stages"]), 2)
        prompts = prompts_of(model)
        wanted = [alone(model, prompt) for prompt in prompts]

        def ask(index):
            body = {"model": str(model), "prompt": prompts[index % len(prompts)], "max_tokens": GENERATED, "temperature": 0,
                    "ignore_eos": True}
            status, answer = self.nodes[index % 2].request("POST", "/v1/completions", body, timeout=120)
            self.assertEqual(status, 200, answer)
            return answer["choices"][0]["text"]

        for index in range(len(prompts)):
            self.assertEqual(ask(index), wanted[index], f"{name}: {len(prompts[index])} tokens, alone")
        with concurrent.futures.ThreadPoolExecutor(21) as pool:
            for index, text in enumerate(pool.map(ask, range(21))):
                self.assertEqual(text, wanted[index % len(prompts)], f"{name}: {len(prompts[index % len(prompts)])} tokens, together")
        status, answer = self.nodes[1].request("DELETE", f"/v1/instances/{instance['id']}")
        self.assertEqual(status, 200, answer)

    def test_states(self):
        self.serve("qwen3_5")

    def test_long_frequencies(self):
        self.serve("phi3")

    def test_latent_attention_and_experts(self):
        self.serve("deepseek_v3")

    def test_windows_and_sinks(self):
        self.serve("gpt_oss_mxfp4")

    def test_soft_caps(self):
        self.serve("gemma2")


if __name__ == "__main__":
    unittest.main()
