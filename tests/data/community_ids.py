#!/usr/bin/env python3
"""Writes tests/data/community_ids.tsv: 1,000 random TCP tuples with their Community ID v1.

The algorithm is written here from the specification's pseudo code alone
(github.com/corelight/community-id-spec), with Python's own SHA-1: nothing of rstscope goes into it.

    python3 tests/data/community_ids.py >tests/data/community_ids.tsv
"""
import base64
import hashlib
import ipaddress
import random
import struct

TCP = 6
SEED = 0


def community_id(source, source_port, destination, destination_port):
    a = (ipaddress.ip_address(source).packed, source_port)
    b = (ipaddress.ip_address(destination).packed, destination_port)
    low, high = (a, b) if a < b else (b, a)
    data = struct.pack("!H", SEED) + low[0] + high[0] + struct.pack("!BB", TCP, 0)
    data += struct.pack("!HH", low[1], high[1])
    return "1:" + base64.b64encode(hashlib.sha1(data).digest()).decode("ascii")


def main():
    chance = random.Random(20260509)
    print("# tests/data/community_ids.py wrote this.")
    for row in range(1000):
        bits, make = ((32, ipaddress.IPv4Address), (128, ipaddress.IPv6Address))[row % 2]
        source = make(chance.getrandbits(bits))
        # Every tenth: both ends share the address; of others, some differ in the last byte only.
        destination = {0: source, 1: make(int(source) ^ chance.randrange(1, 256))}.get(
            row // 2 % 10, make(chance.getrandbits(bits))
        )
        ports = [chance.randrange(65536) for _ in range(2)]
        if row // 2 % 10 == 2:
            ports[1] = ports[0]
        if row // 2 % 10 == 3:
            # The order is that of addresses as numbers, whatever their text or ports look like.
            ports = [65535, 0]
        print(source, ports[0], destination, ports[1],
              community_id(source, ports[0], destination, ports[1]), sep="\t")


main()
