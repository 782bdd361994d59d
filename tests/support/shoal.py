"""Starts shoal nodes for tests, on loopback or in network namespaces, and talks to them. Standard library only."""

import contextlib
import http.client
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
SHOAL = ROOT / "build" / "release" / "shoal"
DEMO_MODEL = ROOT / "models" / "demo" / "shoal-demo-q8_0.gguf"
# What the first node of all tests measured of this machine; a node that finds it fits does not measure again.
MACHINE = pathlib.Path(tempfile.gettempdir()) / f"shoal-tests-{os.getuid()}-machine.json"


def run_shoal(*words, timeout=60, environment=None, stdin=subprocess.DEVNULL, prefix=()):
    """Runs one command to its end; returns the CompletedProcess with text output."""
    return subprocess.run([*prefix, str(SHOAL), *map(str, words)], capture_output=True, text=True, timeout=timeout,
                          stdin=stdin, env={**os.environ, **(environment or {})})


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def workers_of(pid):
    """Process ids of a node's workers, from /proc (a minimal system has no ps). Its other child measures the machine."""
    found = []
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # "pid (name) state ppid …"; the name may hold anything, so split behind its last parenthesis.
            if int(stat.read_text().rsplit(")", 1)[1].split()[1]) == pid:
                words = (stat.parent / "cmdline").read_bytes().split(b"\0")
                if b"worker" in words:
                    found.append(int(stat.parent.name))
    return found


def wait_until(condition, timeout, what):
    """Polls until condition() is truthy and returns it; raises AssertionError naming `what` after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout} s for {what}")
        time.sleep(0.02)


class Network:
    """Network namespaces joined by a bridge: hosts[i] has 10.91.0.(i+1)/24 on eth0. Needs root."""

    def __init__(self, count):
        self.tag = f"shoal{os.getpid()}x{id(self) & 0xfff:x}"
        self.hub = f"{self.tag}hub"
        self.hosts = [f"{self.tag}h{i}" for i in range(count)]
        self.made = []

    @staticmethod
    def available():
        """Whether namespaces can be made and entered here: takes root, iproute2 and a mounted /sys."""
        if os.geteuid() != 0 or shutil.which("ip") is None:
            return False
        name = f"shoalprobe{os.getpid()}"
        try:
            return all(subprocess.run(["ip", *words], capture_output=True).returncode == 0 for words in (
                ["netns", "add", name], ["-n", name, "link", "set", "lo", "up"], ["netns", "exec", name, "true"]))
        finally:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)

    def _ip(self, *words):
        subprocess.run(["ip", *words], check=True, capture_output=True)

    def __enter__(self):
        try:
            self._add(self.hub)
            self._ip("-n", self.hub, "link", "add", "br0", "type", "bridge", "mcast_snooping", "0")
            self._ip("-n", self.hub, "link", "set", "br0", "up")
            for index, host in enumerate(self.hosts):
                self._add(host)
                self._ip("-n", host, "link", "add", "eth0", "type", "veth", "peer", "name", f"p{index}", "netns", self.hub)
                self._ip("-n", host, "addr", "add", f"10.91.0.{index + 1}/24", "dev", "eth0")
                self._ip("-n", host, "link", "set", "eth0", "up")
                self._ip("-n", self.hub, "link", "set", f"p{index}", "master", "br0", "up")
        except BaseException:
            self.__exit__()
            raise
        return self

    def _add(self, namespace):
        self._ip("netns", "add", namespace)
        self.made.append(namespace)
        self._ip("-n", namespace, "link", "set", "lo", "up")

    def __exit__(self, *_):
        for namespace in self.made:
            subprocess.run(["ip", "netns", "del", namespace], capture_output=True)
        self.made = []

    def prefix(self, index):
        return ["ip", "netns", "exec", self.hosts[index]]

    def cut(self, index):
        self._ip("-n", self.hub, "link", "set", f"p{index}", "down")

    def mend(self, index):
        self._ip("-n", self.hub, "link", "set", f"p{index}", "up")


class Node:
    """One `shoal serve`. The API of a node inside a namespace is reached through socket_in_namespace()."""

    def __init__(self, name, *flags, network=None, host=None, port=None, cluster="test"):
        self.name, self.network, self.host = name, network, host
        self.port = port or (8000 if network else free_port())
        self.data = tempfile.mkdtemp(prefix=f"shoal-{name}-")
        self.log_path = pathlib.Path(self.data) / "log.txt"
        self.flags = ["--port", str(self.port), "--name", name, "--cluster", cluster, "--data", self.data, *map(str, flags)]
        self.process = None

    def start(self):
        prefix = self.network.prefix(self.host) if self.network else []
        environment = {**os.environ, "SHOAL_LOG": os.environ.get("SHOAL_LOG", "info")}
        self.log = open(self.log_path, "ab")
        measured = pathlib.Path(self.data) / "machine.json"
        if MACHINE.exists() and not measured.exists():
            shutil.copy(MACHINE, measured)
        self.started = time.monotonic()
        self.process = subprocess.Popen([*prefix, str(SHOAL), "serve", *self.flags], stdout=self.log, stderr=self.log,
                                        stdin=subprocess.DEVNULL, env=environment)
        return self

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()
        shutil.rmtree(self.data, ignore_errors=True)

    def stop(self, how=signal.SIGTERM):
        if self.process and self.process.poll() is None:
            self.process.send_signal(how)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self.process:
            self.log.close()
        measured = pathlib.Path(self.data) / "machine.json"
        if measured.exists() and not MACHINE.exists():
            shutil.copy(measured, MACHINE)
        code = self.process.returncode if self.process else None
        self.process = None
        return code

    def output(self):
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def connect(self, timeout=30):
        """An http.client connection to this node's API, from inside its own machine."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        if self.network:
            connection.sock = socket_in_namespace(self.network.hosts[self.host], "127.0.0.1", self.port, timeout)
        return connection

    def request(self, method, path, body=None, timeout=30, headers=None):
        """Returns (status, parsed JSON or text)."""
        connection = self.connect(timeout)
        try:
            payload = json.dumps(body) if body is not None else None
            connection.request(method, path, payload, {"Content-Type": "application/json", **(headers or {})})
            response = connection.getresponse()
            text = response.read().decode()
        finally:
            connection.close()
        try:
            return response.status, json.loads(text)
        except ValueError:
            return response.status, text

    def chat(self, content, model="shoal-demo", timeout=60, **parameters):
        """One chat completion: (status, body)."""
        body = {"model": model, "messages": [{"role": "user", "content": content}], **parameters}
        return self.request("POST", "/v1/chat/completions", body, timeout)

    def answer(self, content, **parameters):
        """The text of one chat completion; an AssertionError with the body when it failed."""
        status, body = self.chat(content, **parameters)
        assert status == 200, f"{self.name} answered {status}: {body}\n{self.output()[-3000:]}"
        return body["choices"][0]["message"]["content"]

    def stream(self, content, model="shoal-demo", timeout=60, **parameters):
        """Yields the parsed events of a streamed chat completion (without [DONE])."""
        connection = self.connect(timeout)
        try:
            body = {"model": model, "messages": [{"role": "user", "content": content}], "stream": True, **parameters}
            connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
            response = connection.getresponse()
            if response.status != 200:
                raise AssertionError(f"{response.status}: {response.read().decode()}")
            for line in response:
                line = line.decode().strip()
                if line.startswith("data: ") and line != "data: [DONE]":
                    yield json.loads(line[6:])
        finally:
            connection.close()

    def healthy(self):
        if self.process.poll() is not None:
            raise AssertionError(f"{self.name} ended with code {self.process.returncode}:\n{self.output()[-3000:]}")
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self.request("GET", "/health", timeout=5)[0] == 200

    def wait_healthy(self, timeout=20):
        wait_until(self.healthy, timeout, f"{self.name} to answer /health")
        return self

    def cluster(self):
        return self.request("GET", "/v1/cluster")[1]

    def node_names(self):
        return sorted(node["name"] for node in self.cluster()["nodes"])

    def place(self, model="shoal-demo", timeout=60, **options):
        return self.request("POST", "/v1/placements", {"model": model, **options}, timeout)


def socket_in_namespace(namespace, address, port, timeout):
    """A connected TCP socket made inside a network namespace by a short-lived child and passed to us."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            descriptor = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
            import ctypes
            if ctypes.CDLL(None, use_errno=True).setns(descriptor, 0x40000000) == 0:  # CLONE_NEWNET
                made = socket.create_connection((address, port), timeout)
                socket.send_fds(theirs, [b"x"], [made.fileno()])
                code = 0
        except OSError:
            pass
        finally:
            os._exit(code)
    theirs.close()
    try:
        _, status = os.waitpid(child, 0)
        if status != 0:
            raise ConnectionRefusedError(f"nothing answers at {address}:{port} in {namespace}")
        _, descriptors, _, _ = socket.recv_fds(ours, 1, 1)
    finally:
        ours.close()
    made = socket.socket(fileno=descriptors[0])
    made.settimeout(timeout)
    return made
