"""Two taps, one on the load balancer host and one at the client, with a wire between them: this process
reads what either host sends and writes it to the other, as QEMU does. Then connections over them.

    taps.py --lab PREFIX [--virtio]      prints "up", waits for a line, prints what became of them (JSON)

With --virtio each frame has a header in front that may leave its checksum to the receiver, as guests do.
"""

import argparse
import contextlib
import fcntl
import json
import os
import queue
import socket
import struct
import sys
import threading

from peer import Lab, abort

TUNSETIFF, TUNSETOFFLOAD = 0x400454CA, 0x400454D0
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
TUN_F_CSUM = 1
HOST, CLIENT, PORT = "10.77.9.1", "10.77.9.2", 8099
#: Each kind so often.
ROUNDS = 100


def tap(lab, name, is_virtio):
    """A tap in that namespace; what is written to it comes in there."""
    with lab.inside(name):
        fd = os.open("/dev/net/tun", os.O_RDWR)
        flags = IFF_TAP | IFF_NO_PI | (IFF_VNET_HDR if is_virtio else 0)
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", b"tap0", flags))
        if is_virtio:
            fcntl.ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM)
    return fd


def wire(source, sink):
    while frame := os.read(source, 65536):
        # Whoever is not up yet hears nothing.
        with contextlib.suppress(OSError):
            os.write(sink, frame)


def serve(listener, ended):
    """Answers each request, and ends the connection in the way that it asks for; says so of each."""
    while True:
        sock, _ = listener.accept()
        asked = sock.recv(100)
        sock.sendall(b"done\n")
        if asked == b"abort\n":
            sock.recv(1)
            abort(sock)
        elif asked == b"wait\n":
            try:
                sock.recv(1)
            except ConnectionResetError:
                sock.close()
        else:
            sock.close()
        ended.put(asked)


def call(lab, asked):
    """One connection that asks to be ended so; True when it was."""
    with lab.socket("cl", socket.AF_INET) as sock:
        sock.settimeout(5)
        sock.connect((HOST, PORT))
        sock.sendall(asked)
        assert sock.recv(5) == b"done\n"
        if asked == b"wait\n":
            abort(sock)
            return True
        if asked == b"abort\n":
            sock.sendall(b"x")
        try:
            return sock.recv(1) == b"" and asked == b"close\n"
        except ConnectionResetError:
            return asked == b"abort\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lab", required=True)
    parser.add_argument("--virtio", action="store_true")
    arguments = parser.parse_args()
    lab = Lab(arguments.lab)
    ends = [tap(lab, name, arguments.virtio) for name in ("lb", "cl")]
    for source, sink in (ends, reversed(ends)):
        threading.Thread(target=wire, args=(source, sink), daemon=True).start()
    print("up", flush=True)
    sys.stdin.readline()
    listener = lab.socket("lb", socket.AF_INET)
    listener.settimeout(None)
    listener.bind((HOST, PORT))
    listener.listen(16)
    ended = queue.Queue()
    threading.Thread(target=serve, args=(listener, ended), daemon=True).start()
    kinds = [b"close\n", b"abort\n", b"wait\n"]
    good = {kind.decode().strip(): sum(call(lab, kind) for _ in range(ROUNDS)) for kind in kinds}
    # The last reset is still on its way.
    for _ in range(ROUNDS * len(kinds)):
        ended.get(timeout=5)
    print(json.dumps(good), flush=True)


main()
