"""Clusters of real processes in network namespaces joined by a bridge: discovery, one answer from many machines, the
same bits whatever the cut, failures. Everything is measured and printed; only generous limits are asserted."""

import concurrent.futures
import contextlib
import json
import os
import pathlib
import signal
import subprocess
import tempfile
import time
import unittest

from support.shoal import DEMO_MODEL, Network, Node, workers_of, wait_until
from support.synthetic import make_model

NAMES = ["ada", "bob", "cleo", "dan", "eve"]
# Generous against a loaded machine; DESIGN promises 2 s and 3 s and the measured times are printed.
DISCOVERY_SECONDS = 2.0
FAILURE_SECONDS = 3.0
SEEDED = {"temperature": 0.8, "top_p": 0.95, "seed": 42, "max_tokens": 40}
GREEDY = {"temperature": 0, "max_tokens": 40}
QUESTIONS = ["What is the capital of Norway?", "What is a shard?", "Write a poem about the moon."]


def say(text):
    print(text, flush=True)


@contextlib.contextmanager
def cluster(count, *flags, cluster_name="test", environment=None):
    """A network of `count` nodes that are up and see each other."""
    with Network(count) as network, contextlib.ExitStack() as stack:
        nodes = [stack.enter_context(Node(NAMES[i], *flags, network=network, host=i, cluster=cluster_name)) for i in range(count)]
        for node in nodes:
            node.wait_healthy()
        wait_for_models(nodes)
        yield network, nodes


def wait_for_members(nodes, timeout=15):
    names = sorted(node.name for node in nodes)
    for node in nodes:
        wait_until(lambda: node.node_names() == names, timeout, f"{node.name} to see {names}")


def wait_for_models(nodes, timeout=15):
    """Members, and each has told the others which models it holds."""
    wait_for_members(nodes, timeout)
    for node in nodes:
        wait_until(lambda: all(other["models"] for other in node.cluster()["nodes"]), timeout, f"{node.name} to hear of all models")


def placed_over(node, count, model="shoal-demo", **options):
    """Places the model over `count` nodes and returns the instance; it must have that many stages."""
    status, body = node.place(model, min_nodes=count, **options)
    assert status == 200, (status, body, node.output()[-2000:])
    assert len(body["stages"]) >= count, body
    return body


def tokens_of(node, **parameters):
    return [node.answer(question, **parameters) for question in QUESTIONS]


@unittest.skipUnless(Network.available(), "network namespaces need root, iproute2 and a mounted /sys")
class Discovery(unittest.TestCase):
    def test_nodes_find_each_other_within_two_seconds(self):
        for count in (2, 3, 5):
            with Network(count) as network, contextlib.ExitStack() as stack:
                nodes = [stack.enter_context(Node(NAMES[i], network=network, host=i)) for i in range(count)]
                for node in nodes:
                    node.wait_healthy()
                last_started = max(node.started for node in nodes)
                wait_for_members(nodes)
                seconds = time.monotonic() - last_started
                say(f"{count} nodes found each other {seconds:.2f} s after the last one was started")
                self.assertLessEqual(seconds, DISCOVERY_SECONDS)

    def test_clusters_of_other_names_stay_strangers(self):
        with Network(4) as network, contextlib.ExitStack() as stack:
            reds = [stack.enter_context(Node(NAMES[i], network=network, host=i, cluster="red")) for i in (0, 1)]
            blues = [stack.enter_context(Node(NAMES[i], network=network, host=i, cluster="blue")) for i in (2, 3)]
            for node in reds + blues:
                node.wait_healthy()
            wait_for_members(reds)
            wait_for_members(blues)
            time.sleep(2)
            self.assertEqual(reds[0].node_names(), ["ada", "bob"])
            self.assertEqual(blues[0].node_names(), ["cleo", "dan"])

    def test_one_machine_without_any_network(self):
        """Three nodes in one namespace with only a loopback interface."""
        with Network(1) as network, contextlib.ExitStack() as stack:
            subprocess.run(["ip", "-n", network.hosts[0], "link", "del", "eth0"], check=True)
            nodes = [stack.enter_context(Node(NAMES[i], network=network, host=0, port=8000 + i)) for i in range(3)]
            for node in nodes:
                node.wait_healthy()
            wait_for_models(nodes)
            placed_over(nodes[1], 3)
            self.assertIn("Oslo", nodes[2].answer(QUESTIONS[0], **GREEDY))


@unittest.skipUnless(Network.available(), "network namespaces need root, iproute2 and a mounted /sys")
class OneAnswer(unittest.TestCase):
    def test_tokens_are_equal_whatever_the_cut(self):
        """1, 2, 3 and 5 stages, greedy and seeded, asked at the first and at the last node."""
        with cluster(5) as (_, nodes):
            expected = None
            for count in (1, 2, 3, 5):
                instance = placed_over(nodes[0], count)
                got = {kind: tokens_of(node, **parameters)
                       for kind, parameters in (("greedy", GREEDY), ("seeded", SEEDED)) for node in (nodes[0],)}
                got_far = {"greedy": tokens_of(nodes[4], **GREEDY), "seeded": tokens_of(nodes[4], **SEEDED)}
                expected = expected or got
                self.assertEqual(got, expected, f"{count} stages")
                self.assertEqual(got_far, expected, f"{count} stages, asked at the last node")
                self.assertEqual(len(instance["stages"]), count)
                self.assertEqual(nodes[1].request("DELETE", f"/v1/instances/{instance['id']}")[0], 200)
            self.assertIn("Oslo", expected["greedy"][0])
            say(f"equal answers from 1, 2, 3 and 5 stages: {expected['greedy'][0]!r}")

    def test_model_larger_than_any_node(self):
        """A model that no node could hold alone answers through every node's API, with a single node's tokens."""
        with tempfile.TemporaryDirectory() as scratch:
            path = pathlib.Path(scratch) / "synthetic.gguf"
            size = make_model(path, DEMO_MODEL, layers=32, hidden=1024, feed_forward=4096, heads=16, kv_heads=8, head_dim=64)
            parameters = {"model": str(path), "max_tokens": 12}
            with cluster(1) as (_, nodes):
                placed_over(nodes[0], 1, str(path), context=512)
                expected = [nodes[0].answer("Hello", temperature=0, **parameters),
                            nodes[0].answer("Hello", temperature=1, seed=7, **parameters)]
            for count, share in ((2, 0.85), (3, 0.68), (5, 0.55)):
                memory = int(size * share)
                with cluster(count, "--memory", memory) as (_, nodes):
                    status, body = nodes[0].place(str(path), context=512)
                    self.assertEqual(status, 200, body)
                    self.assertGreaterEqual(len(body["stages"]), 2)
                    for node in nodes:
                        self.assertEqual([node.answer("Hello", temperature=0, **parameters),
                                          node.answer("Hello", temperature=1, seed=7, **parameters)], expected)
                    say(f"{size >> 20} MiB model over {len(body['stages'])} of {count} nodes of {memory >> 20} MiB each: "
                        "equal tokens through every node")

    def test_eight_requests_at_once(self):
        with cluster(3) as (_, nodes):
            placed_over(nodes[0], 3)
            questions = [(nodes[i % 3], QUESTIONS[i % 3], GREEDY if i % 2 else {**SEEDED, "seed": i}) for i in range(8)]
            alone = [node.answer(question, **parameters) for node, question, parameters in questions]
            with concurrent.futures.ThreadPoolExecutor(8) as pool:
                together = list(pool.map(lambda q: q[0].answer(q[1], **q[2]), questions))
            self.assertEqual(together, alone)

    def test_streams_add_up_to_the_whole_answer(self):
        with cluster(2) as (_, nodes):
            placed_over(nodes[0], 2)
            for node in nodes:
                events = list(node.stream(QUESTIONS[1], stream_options={"include_usage": True}, **GREEDY))
                text = "".join(choice["delta"].get("content") or "" for event in events for choice in event["choices"])
                self.assertEqual(text, node.answer(QUESTIONS[1], **GREEDY))
                self.assertGreater(events[-1]["usage"]["completion_tokens"], 3)


@unittest.skipUnless(Network.available(), "network namespaces need root, iproute2 and a mounted /sys")
class Failures(unittest.TestCase):
    def stream_until_broken(self, node, break_it):
        """Starts a long stream, breaks something after the third event, returns (seconds until the error, error)."""
        broken = None
        for count, event in enumerate(node.stream("Write a poem about the moon.", temperature=0, max_tokens=100_000 // 64, ignore_eos=True)):
            if count == 3:
                broken = time.monotonic()
                break_it()
            if "error" in event:
                return time.monotonic() - broken, event["error"]
        raise AssertionError("the stream ended without an error")

    def check_failure(self, what, index, count=3):
        """Breaks `what` at node `index` under a stream at node 0; the rest must go on and place again."""
        with cluster(count) as (network, nodes):
            instance = placed_over(nodes[0], count)
            hosts = [stage["node_name"] for stage in instance["stages"]]
            victim = nodes[index]

            def break_it():
                if what == "worker":
                    os.kill(workers_of(victim.process.pid)[0], signal.SIGKILL)
                elif what == "node":
                    victim.process.kill()
                else:
                    network.cut(index)

            seconds, error = self.stream_until_broken(nodes[0], break_it)
            say(f"{what} of {victim.name} lost: the client was told after {seconds:.2f} s: {error['message']}")
            self.assertLessEqual(seconds, FAILURE_SECONDS + 0.5)
            self.assertIn(victim.name, hosts)
            self.assertTrue(error["message"])
            left = nodes if what == "worker" else [node for node in nodes if node is not victim]
            wait_for_models(left)
            again = placed_over(left[0], len(left))
            self.assertEqual(len(again["stages"]), len(left))
            for node in left:
                self.assertIn("Oslo", node.answer(QUESTIONS[0], **GREEDY))
            if what == "link":
                network.mend(index)
                wait_for_members(nodes, timeout=20)

    def test_worker_killed(self):
        self.check_failure("worker", 1)

    def test_first_stage_worker_killed(self):
        self.check_failure("worker", 0)

    def test_node_killed(self):
        self.check_failure("node", 2)

    def test_link_cut(self):
        self.check_failure("link", 1)

    def test_disconnected_client_frees_its_sequence(self):
        with cluster(2) as (_, nodes):
            placed_over(nodes[0], 2)
            stream = nodes[1].stream("Write a poem about the moon.", temperature=0, max_tokens=1500, ignore_eos=True)
            for _ in range(3):
                next(stream)
            stream.close()
            wait_until(lambda: all(i.get("active_sequences") == 0 for i in nodes[0].cluster()["instances"]), 3,
                       "the abandoned sequence to be freed")

    def test_model_that_does_not_fit_names_what_is_missing(self):
        with cluster(2, "--memory", "2MiB") as (_, nodes):
            status, body = nodes[0].place("shoal-demo")
            self.assertIn(status, (400, 409, 503, 507))
            self.assertIn("MiB", json.dumps(body))


if __name__ == "__main__":
    unittest.main()
