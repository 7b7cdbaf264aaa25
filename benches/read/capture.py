#!/usr/bin/env python3
"""Writes a capture of SYN, FIN and RST packets: `capture.py FILE [FLOWS]`, five packets a flow.

Three flows in ten end by FIN, three by a reset of the client, three by one of the server, one by three forged ones.
The segments of 2,000 flows lie between one another, as on a busy host. The same arguments give the same bytes.
"""
import argparse
import random
import struct

SYN, FIN, RST, ACK = 2, 1, 4, 16
CONCURRENT = 2000
STEP_NS = 20_000


def packet(src, dst, sport, dport, seq, ack, flags, ttl, ident, window):
    options = bytes.fromhex("020405b40402080a0000000100000000") + b"\x01\x03\x03\x07" if flags & SYN else b""
    length = 40 + len(options)
    ip = struct.pack(">BBHHHBBHII", 0x45, 0, length, ident, 0x4000, ttl, 6, 0, src, dst)
    tcp = struct.pack(">HHIIBBHHH", sport, dport, seq, ack, (20 + len(options)) // 4 << 4, flags, window, 0, 0)
    return b"\x02\0\0\0\0\x0a\x02\0\0\0\0\x0b\x08\0" + ip + tcp + options


def flow(number, dice):
    client, server = 0x0A000000 + number % 50_000, 0xC6336400 + number % 100
    port, service = 1024 + number // 50_000 * 911 + number % 911, 443
    a, b, ident = dice.getrandbits(32), dice.getrandbits(32), dice.getrandbits(16)
    sent, got = (a + 1 + dice.randrange(5000)) & 0xFFFFFFFF, (b + 1 + dice.randrange(90_000)) & 0xFFFFFFFF
    to, back = (client, server, port, service), (server, client, service, port)
    yield packet(*to, a, 0, SYN, 57, ident, 64240)
    yield packet(*back, b, a + 1 & 0xFFFFFFFF, SYN | ACK, 64, 0, 65160)
    kind = dice.random()
    if kind < 0.1:
        # A train of three, as the Great Firewall sends them.
        for copy in range(3):
            yield packet(*to, sent + copy * 1460 & 0xFFFFFFFF, got, RST | ACK, 113, dice.getrandbits(16), 0)
    elif kind < 0.4:
        yield packet(*to, sent, got, FIN | ACK, 57, ident + 20 & 0xFFFF, 501)
        yield packet(*back, got, sent + 1 & 0xFFFFFFFF, FIN | ACK, 64, 901, 502)
        # A retransmission: the last ACK, which is no SYN, FIN or RST, was lost.
        yield packet(*back, got, sent + 1 & 0xFFFFFFFF, FIN | ACK, 64, 902, 502)
    elif kind < 0.7:
        # The client closes, the server's data meets a closed socket.
        yield packet(*to, sent, got, FIN | ACK, 57, ident + 20 & 0xFFFF, 501)
        yield packet(*to, sent + 1 & 0xFFFFFFFF, 0, RST, 57, 0, 0)
        yield packet(*to, sent + 1 & 0xFFFFFFFF, 0, RST, 57, 0, 0)
    else:
        yield packet(*to, sent, got, FIN | ACK, 57, ident + 20 & 0xFFFF, 501)
        yield packet(*back, got, sent + 1 & 0xFFFFFFFF, RST | ACK, 64, 901, 502)
        yield packet(*back, got, sent + 1 & 0xFFFFFFFF, RST, 64, 0, 0)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file")
    parser.add_argument("flows", nargs="?", type=int, default=400_000)
    asked = parser.parse_args()
    path, flows = asked.file, asked.flows
    dice = random.Random(1)
    live, following, now = [], 0, 1_700_000_000_000_000_000
    with open(path, "wb") as out:
        out.write(struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 65535, 1))
        while live or following < flows:
            while len(live) < CONCURRENT and following < flows:
                live.append(flow(following, dice))
                following += 1
            at = dice.randrange(len(live))
            bytes_ = next(live[at], None)
            if bytes_ is None:
                live[at] = live[-1]
                live.pop()
                continue
            now += STEP_NS
            out.write(struct.pack("<IIII", now // 10**9, now % 10**9, len(bytes_), len(bytes_)) + bytes_)


if __name__ == "__main__":
    main()
