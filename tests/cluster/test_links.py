"""What nodes measure of themselves and of the links between them: against lines of known speed and length."""

import contextlib
import json
import os
import pathlib
import re
import unittest

from support.shaped import ShapedNetwork
from support.shoal import Network, Node, run_shoal, wait_until

NAMES = ["ada", "bob", "cleo"]


@contextlib.contextmanager
def nodes_on(network, count, same_host=False):
    with network, contextlib.ExitStack() as stack:
        nodes = [stack.enter_context(Node(NAMES[i], network=network, host=0 if same_host else i, port=8000 + i)) for i in range(count)]
        for node in nodes:
            node.wait_healthy()
        yield nodes


def wait_for_links(node, count, timeout=20):
    """The links that `node` knows of, once there are `count`."""
    return wait_until(lambda: len(node.cluster()["links"]) >= count and node.cluster()["links"], timeout,
                      f"{count} links to be measured")


@unittest.skipUnless(ShapedNetwork.available(), "needs root, network namespaces and /dev/net/tun")
class ShapedLinks(unittest.TestCase):
    def test_figures_are_those_of_the_line(self):
        """A line of 50 Mb/s and 10 ms each way, as each end sees it and as `shoal links` shows it."""
        with nodes_on(ShapedNetwork(delay_seconds=0.010, bits_per_second=50e6), 2) as nodes:
            links = wait_for_links(nodes[0], 2)
            for link in links:
                print(f"{link['from_name']} to {link['to_name']}: {link['rtt_p50_us'] / 1000:.1f} ms, p99 {link['rtt_p99_us'] / 1000:.1f} ms, "
                      f"{link['bytes_per_second'] * 8 / 1e6:.1f} Mb/s", flush=True)
                self.assertAlmostEqual(link["rtt_p50_us"], 20e3, delta=4e3)
                self.assertGreaterEqual(link["rtt_p99_us"], link["rtt_p50_us"])
                self.assertAlmostEqual(link["bytes_per_second"] * 8, 50e6, delta=10e6)
                self.assertEqual(link["kind"], "ethernet")
                self.assertLess(link["age_seconds"], 30)
            self.assertEqual({(link["from_name"], link["to_name"]) for link in links}, {("ada", "bob"), ("bob", "ada")})
            table = run_shoal("links", prefix=nodes[0].network.prefix(0)).stdout
            print(table)
            self.assertRegex(table, r"ada +bob +Ethernet +.*ms +.*ms +.*Mb/s +\d+ s +10\.91\.0\.1 - 10\.91\.0\.2")
            as_json = json.loads(run_shoal("links", "--json", prefix=nodes[0].network.prefix(0)).stdout)
            self.assertEqual(len(as_json["links"]), 2)


@unittest.skipUnless(Network.available(), "network namespaces need root, iproute2 and a mounted /sys")
class Links(unittest.TestCase):
    def test_every_pair_is_measured_soon_after_nodes_meet(self):
        with nodes_on(Network(3), 3) as nodes:
            links = wait_for_links(nodes[1], 6)
            self.assertEqual(len({(link["from"], link["to"]) for link in links}), 6)
            for link in links:
                self.assertEqual(link["kind"], "ethernet")
                self.assertGreater(link["speed_mbps"], 0)
                self.assertGreater(link["bytes_per_second"], 1e6)

    def test_nodes_of_one_machine_are_on_loopback(self):
        with nodes_on(Network(1), 2, same_host=True) as nodes:
            for link in wait_for_links(nodes[0], 2):
                self.assertEqual(link["kind"], "loopback")

    def test_links_to_a_node_that_left_are_gone(self):
        with nodes_on(Network(2), 2) as nodes:
            wait_for_links(nodes[0], 2)
            nodes[1].stop()
            wait_until(lambda: nodes[0].cluster()["links"] == [], 10, "the links to be forgotten")


class Machine(unittest.TestCase):
    def test_figures_are_kept_and_measured_again_when_asked(self):
        with Node("ada") as node:
            node.wait_healthy()

            def figures():
                found = node.cluster()["nodes"][0]
                return found["decode_bytes_per_second"] > 0 and found

            first = wait_until(figures, 20, "this machine to be measured")
            self.assertEqual(first["weight_rates"][0]["weights"], "q8")
            self.assertGreater(first["prefill_flops_per_second"], 0)
            kept = os.path.join(node.data, "machine.json")
            wait_until(lambda: os.path.exists(kept), 5, "the figures to be kept")
            node.stop()

            text = pathlib.Path(kept).read_text()
            changed = re.sub(r'("decode_bytes_per_second": )[0-9.Ee+]+', r"\g<1>123E9", text, count=1)
            self.assertNotEqual(changed, text)
            pathlib.Path(kept).write_text(changed)
            node.start().wait_healthy()
            self.assertEqual(figures()["decode_bytes_per_second"], 123e9)
            node.stop()

            node.flags.append("--measure")
            node.start().wait_healthy()
            again = wait_until(figures, 20, "this machine to be measured again")
            self.assertNotEqual(again["decode_bytes_per_second"], 123e9)


if __name__ == "__main__":
    unittest.main()
