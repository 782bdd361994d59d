"""Two machines on a line of a given speed and length: network namespaces whose interfaces are TAP devices, and a process
that carries every frame across. Needs no queueing discipline of the kernel. Needs root and /dev/net/tun."""

import fcntl
import heapq
import os
import select
import signal
import struct
import subprocess
import time

from support.shoal import Network

TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
MOST_QUEUED_SECONDS = 0.5  # what a line's buffer holds; then it drops frames


class ShapedNetwork(Network):
    """hosts[0] and hosts[1] have 10.91.0.1/24 and 10.91.0.2/24 on eth0; each direction is delayed and paced by itself."""

    def __init__(self, delay_seconds, bits_per_second):
        super().__init__(2)
        self.delay_seconds, self.bits_per_second = delay_seconds, bits_per_second
        self.devices, self.carrier = [], None

    @staticmethod
    def available():
        return Network.available() and os.access("/dev/net/tun", os.R_OK | os.W_OK)

    def __enter__(self):
        try:
            for index, host in enumerate(self.hosts):
                self._add(host)
                name = f"sh{os.getpid() % 100000}t{index}"
                self.devices.append(os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC))
                fcntl.ioctl(self.devices[index], TUNSETIFF, struct.pack("16sH22s", name.encode(), IFF_TAP | IFF_NO_PI, b""))
                self._ip("link", "set", name, "netns", host, "name", "eth0")
                self._ip("-n", host, "addr", "add", f"10.91.0.{index + 1}/24", "dev", "eth0")
                self._ip("-n", host, "link", "set", "eth0", "up")
            self.carrier = os.fork()
            if self.carrier == 0:
                try:
                    os.nice(-10)
                    carry(self.devices, self.delay_seconds, self.bits_per_second)
                finally:
                    os._exit(1)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if self.carrier:
            os.kill(self.carrier, signal.SIGKILL)
            os.waitpid(self.carrier, 0)
            self.carrier = None
        for device in self.devices:
            os.close(device)
        self.devices = []
        super().__exit__()


def carry(devices, delay_seconds, bits_per_second):
    """Takes frames from each device and gives them to the other when a line would have: paced, then delayed."""
    free_at = [0.0, 0.0]
    waiting, number = [], 0
    while True:
        now = time.monotonic()
        while waiting and waiting[0][0] <= now:
            _, _, device, frame = heapq.heappop(waiting)
            try:
                os.write(device, frame)
            except OSError:
                pass  # an interface that is down
        timeout = max(0.0, waiting[0][0] - now) if waiting else None
        for device in select.select(devices, [], [], timeout)[0]:
            frame = os.read(device, 65536)
            side, now = devices.index(device), time.monotonic()
            begin = max(now, free_at[side])
            if begin - now > MOST_QUEUED_SECONDS:
                continue
            free_at[side] = begin + len(frame) * 8 / bits_per_second
            number += 1
            heapq.heappush(waiting, (free_at[side] + delay_seconds, number, devices[1 - side], frame))
