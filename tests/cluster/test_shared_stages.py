"""Stages that several nodes share (tensor parallelism): answers, repetition, unlike shares, failures, and rows as bf16."""

import contextlib
import os
import signal
import unittest

from support.shoal import Node, workers_of, wait_until

QUESTIONS = ["What is the capital of Norway?", "What is a shard?", "Write a poem about the moon."]
GREEDY = {"temperature": 0, "max_tokens": 40}
SEEDED = {"temperature": 0.8, "top_p": 0.95, "seed": 42, "max_tokens": 40}


def answers(node, **parameters):
    return [node.answer(question, **parameters) for question in QUESTIONS]


class SharedStages(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        stack = contextlib.ExitStack()
        cls.addClassCleanup(stack.close)
        cls.nodes = [stack.enter_context(Node(name, "--listen", "127.0.0.1", cluster="shared")) for name in ("ada", "bob", "cleo")]
        for node in cls.nodes:
            node.wait_healthy()
        for node in cls.nodes:
            wait_until(lambda: len(node.node_names()) == 3 and all(other["models"] for other in node.cluster()["nodes"]), 20,
                       "three nodes and their models")
        cls.place("pipeline", 1)
        cls.expected = answers(cls.nodes[0], **GREEDY)
        cls.stop()

    @classmethod
    def place(cls, strategy, nodes, **options):
        status, body = cls.nodes[0].place("shoal-demo", min_nodes=nodes, strategy=strategy, **options)
        assert status == 200, body
        return body

    @classmethod
    def stop(cls):
        assert cls.nodes[1].request("DELETE", "/v1/instances/shoal-demo")[0] == 200

    def tearDown(self):
        with contextlib.suppress(AssertionError):
            self.stop()

    def test_two_and_three_nodes_share_every_layer(self):
        """The trained model's greedy answers are a single node's; seeded ones are the same every time and everywhere."""
        for count in (2, 3):
            instance = self.place("tensor", count)
            self.assertEqual([len(stage["ranks"]) for stage in instance["stages"]], [count])
            self.assertEqual(sum(rank["share"] for rank in instance["stages"][0]["ranks"]), 1000)
            self.assertEqual(answers(self.nodes[0], **GREEDY), self.expected, f"{count} ranks")
            self.assertEqual(answers(self.nodes[2], **GREEDY), self.expected, f"{count} ranks, asked elsewhere")
            self.assertEqual(answers(self.nodes[0], **SEEDED), answers(self.nodes[1], **SEEDED), f"{count} ranks")
            self.stop()

    def test_a_shared_stage_beside_one_of_its_own(self):
        instance = self.place("hybrid", 3)
        self.assertEqual(sorted(len(stage["ranks"]) for stage in instance["stages"]), [1, 2])
        self.assertEqual(answers(self.nodes[1], **GREEDY), self.expected)

    def test_rows_as_bf16_between_stages(self):
        instance = self.place("pipeline", 2, wire="bf16")
        self.assertEqual(instance["wire"], "bf16")
        first = answers(self.nodes[0], **GREEDY)
        self.assertIn("Oslo", first[0])
        self.assertEqual(answers(self.nodes[2], **GREEDY), first)

    def test_what_it_would_give_is_shown_before(self):
        status, preview = self.nodes[0].place("shoal-demo", min_nodes=2, strategy="tensor", preview=True)
        self.assertEqual(status, 200, preview)
        best = preview["placements"][0]
        self.assertEqual(best["strategy"], "tensor")
        self.assertGreater(best["predicted_tokens_per_second"], 0)
        self.assertGreater(best["stages"][0]["ranks"][1]["memory_bytes"], 0)
        status, body = self.nodes[0].place("shoal-demo", strategy="tensor", only=["x"])
        self.assertEqual(status, 400, body)

    def test_a_killed_rank_ends_its_requests_and_the_model_can_be_placed_again(self):
        self.place("tensor", 3)
        self.assertEqual(answers(self.nodes[0], **GREEDY), self.expected)
        victim = workers_of(self.nodes[2].process.pid)[0]
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: not any(instance["state"] == "ready" for instance in self.nodes[0].cluster()["instances"]), 5,
                   "the loss to be noticed")
        self.place("tensor", 3)
        self.assertEqual(answers(self.nodes[1], **GREEDY), self.expected)


if __name__ == "__main__":
    unittest.main()
