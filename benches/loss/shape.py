"""Two network namespaces, and the bad network between them: packets are delayed, and some are lost.

    shape.py LOSS_PERCENT DELAY_MS

Prints `ready` when packets can flow from imks-loss-a (10.77.0.1) to imks-loss-b (10.77.0.2), and ends with its standard
input. Needs root. It carries IP packets between two TUN devices, so TCP and UDP meet the same network, as with netem,
which not every kernel has. A datagram is lost or delayed whichever protocol it belongs to.
"""

import fcntl
import heapq
import os
import random
import select
import struct
import subprocess
import sys
import time

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
PACKET_BYTES, MTU = 65536, 1500
ENDS = [("imks-loss-a", "imksla", "10.77.0.1/24"), ("imks-loss-b", "imkslb", "10.77.0.2/24")]


def ip(*args, check=True):
    subprocess.run(["ip", *args], check=check, stderr=None if check else subprocess.DEVNULL)


def end(namespace, device, address):
    """Makes a namespace with a device, and returns the file from which its packets are read."""
    ip("netns", "del", namespace, check=False)
    ip("netns", "add", namespace)
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH", device.encode(), IFF_TUN | IFF_NO_PI))
    ip("link", "set", device, "netns", namespace)
    ip("-n", namespace, "addr", "add", address, "dev", device)
    ip("-n", namespace, "link", "set", device, "mtu", str(MTU), "txqueuelen", "10000", "up")
    ip("-n", namespace, "link", "set", "lo", "up")
    return tun


def carry(a, b, loss, delay):
    """Carries packets until the standard input ends. Each way has its order: a packet overtakes no other."""
    chance = random.Random(7)
    waiting, number = [], 0
    other = {a: b, b: a}
    while True:
        timeout = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
        ready, _, _ = select.select([a, b, 0], [], [], timeout)
        now = time.monotonic()
        for file in ready:
            if file == 0:
                if not os.read(0, 1):
                    return
                continue
            while True:
                try:
                    packet = os.read(file, PACKET_BYTES)
                except BlockingIOError:
                    break
                if chance.random() >= loss:
                    number += 1
                    heapq.heappush(waiting, (now + delay, number, other[file], packet))
        while waiting and waiting[0][0] <= time.monotonic():
            _, _, to, packet = heapq.heappop(waiting)
            try:
                os.write(to, packet)
            except OSError:
                pass  # The device takes no more, as any queue of a network.


loss, delay = float(sys.argv[1]) / 100, float(sys.argv[2]) / 1000
try:
    files = [end(*each) for each in ENDS]
    print("ready", flush=True)
    carry(*files, loss, delay)
finally:
    for namespace, _, _ in ENDS:
        ip("netns", "del", namespace, check=False)
