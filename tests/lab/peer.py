"""Endpoints of the lab: TCP sockets in any of its namespaces, out of one process.

A socket belongs to the namespace in which it was made, and a thread may change its namespace
alone, so one process plays client, load balancer host and backend.

    peer.py --lab PREFIX --http COUNT [--url URL]    requests from the client, one connection each
"""

import argparse
import contextlib
import ctypes
import fcntl
import os
import socket
import struct
import sys
import time

CLONE_NEWNET = 0x40000000
TCP_REPAIR = 19
LIBC = ctypes.CDLL(None, use_errno=True)

ADDRESSES = {
    "cl": ("10.77.1.2", "fd77:1::2"),
    "cl-moving": ("10.77.1.66", "fd77:1::66"),
    "nb": ("10.77.2.9", "fd77:2::9"),
    "lb": ("10.77.2.2", "fd77:2::2"),
    "lb-dn": ("10.77.3.1", "fd77:3::1"),
    "be": ("10.77.3.2", "fd77:3::2"),
}


def setns(fd):
    if LIBC.setns(fd, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


class Lab:
    """The namespaces that `scripts/lab up PREFIX` made."""

    def __init__(self, prefix):
        self.prefix = prefix

    @contextlib.contextmanager
    def alone(self, what):
        """One at a time, over all processes."""
        with open(f"/run/rstscope-lab/{self.prefix}/{what}", "w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @property
    def proxy(self):
        """The backends behind the proxies have fixed ports."""
        return self.alone("proxy")

    @contextlib.contextmanager
    def inside(self, namespace):
        """Runs a block with this thread in a namespace."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        there = os.open(f"/run/netns/{self.prefix}{namespace}", os.O_RDONLY)
        setns(there)
        try:
            yield
        finally:
            setns(home)
            os.close(home)
            os.close(there)

    def socket(self, namespace, family):
        with self.inside(namespace):
            made = socket.socket(socket.AF_INET6 if family == 6 else socket.AF_INET)
        made.settimeout(3)
        return made


def address(host, family):
    return ADDRESSES[host][1 if family == 6 else 0]


def leave_with(sock, hop_limit):
    """Segments leave with this hop limit from now on, the last one too."""
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, hop_limit)
    else:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, hop_limit)


class Connection:
    """Both ends of a TCP connection: `near` called, `far` accepted."""

    def __init__(self, lab, family, near="cl", far="lb", port=0, called=None, greet=True,
                 caller=None, hop_limit=64):
        listener = lab.socket(far, family)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address(far, family), port))
        listener.listen(8)
        self.near = lab.socket(near, family)
        if caller:
            self.near.bind((address(caller, family), 0))
            leave_with(self.near, hop_limit)
        there, bound = listener.getsockname()[:2]
        self.near.connect((there, called or bound))
        self.far, _ = listener.accept()
        self.far.settimeout(3)
        listener.close()
        self.near_end = self.near.getsockname()[:2]
        # As the wire has it: this host may translate what the client called.
        self.far_end = self.near.getpeername()[:2]
        if greet:
            self.greet()

    def greet(self):
        """A request and its answer, so that both directions have a history."""
        self.near.sendall(b"hello from the caller\n")
        receive(self.far, 22)
        self.far.sendall(b"hello from the called\n")
        receive(self.near, 22)
        time.sleep(0.01)

    def close(self):
        """Both ends, in order."""
        self.near.close()
        self.far.close()


def receive(sock, count):
    """Exactly `count` bytes."""
    while count:
        data = sock.recv(count)
        if not data:
            raise ConnectionError("closed early")
        count -= len(data)


def abort(sock):
    """Closes with a reset (SO_LINGER with time 0)."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def vanish(sock):
    """Closes without a word on the wire, as a host that loses its power."""
    sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
    sock.close()


def window_of(sock):
    """Bytes that the peer lets a socket send beyond what it has acknowledged (tcpi_snd_wnd of struct tcp_info)."""
    return struct.unpack_from("=I", sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 232), 228)[0]


def talk(sock, times=3, pause=0.01):
    """Goes on talking as long as the connection lives."""
    for number in range(times):
        with contextlib.suppress(OSError):
            sock.sendall(b"still here %d\n" % number)
        time.sleep(pause)


def syns_again(lab):
    """SYNs and SYN-ACKs that client and load balancer had to send more than once (TcpExtTCPSynRetrans)."""
    again = 0
    for namespace in ("cl", "lb"):
        # The thread's own: `self` is the process, whose namespace is that of its first thread.
        with lab.inside(namespace), open("/proc/thread-self/net/netstat", encoding="ascii") as file:
            names, counts = [line.split() for line in file if line.startswith("TcpExt:")]
        again += int(counts[names.index("TCPSynRetrans")])
    return again


def http(lab, count, host, port):
    """`count` requests over `count` connections; how many failed, the first reason, the longest (s)."""
    failed, reason, longest = 0, "", 0
    for _ in range(count):
        begun = time.monotonic()
        try:
            with contextlib.closing(lab.socket("cl", 6 if ":" in host else 4)) as sock:
                sock.connect((host, port))
                sock.sendall(b"GET / HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n")
                answer = b""
                while data := sock.recv(4096):
                    answer += data
            if not answer.startswith(b"HTTP/1.1 200") or not answer.endswith(b"backend\n"):
                raise ConnectionError(f"answer {answer[:40]!r}")
        except OSError as error:
            failed += 1
            reason = reason or str(error)
        longest = max(longest, time.monotonic() - begun)
    return failed, reason, longest


def main():
    arguments = argparse.ArgumentParser(description="HTTP requests through the lab's proxy")
    arguments.add_argument("--lab", required=True)
    arguments.add_argument("--http", type=int, required=True)
    arguments.add_argument("--host", default="10.77.2.2")
    arguments.add_argument("--port", type=int, default=8080)
    given = arguments.parse_args()
    lab = Lab(given.lab)
    before = syns_again(lab)
    failed, reason, longest = http(lab, given.http, given.host, given.port)
    print(f"{given.http - failed} of {given.http} requests succeeded, the slowest in "
          f"{1000 * longest:.0f} ms, {syns_again(lab) - before} SYNs sent again"
          + (f"; first failure: {reason}" if failed else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
