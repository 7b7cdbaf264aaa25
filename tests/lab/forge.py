"""Raw TCP frames: reads them off an interface, makes them up, and sends them.

Python's standard library only. What is sent here bears somebody else's address on purpose; it
never leaves the lab's namespaces.
"""

import select
import socket
import struct
import time
from collections import namedtuple

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
ETH_P_ALL = 3
PACKET_OUTGOING = 4

#: A TCP segment as it was on the wire; `time` is when it was read, `way` is "in" or "out".
Segment = namedtuple(
    "Segment",
    "interface way source source_port destination destination_port flags seq ack window "
    "hop_limit ip_id options length mac time",
)


def checksum(data):
    """Internet checksum (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def mac_bytes(text):
    return bytes.fromhex(text.replace(":", ""))


def is_fragment(frame):
    """An IPv6 packet with a fragment header in front."""
    return frame[20] == socket.IPPROTO_FRAGMENT and len(frame) > 62


def parse(frame, interface="", way=""):
    """The TCP segment of an Ethernet frame without VLAN tags, or None. Behind what `build` puts before it, too."""
    kind = frame[12:14]
    if kind == b"\x08\x00" and frame[23] == socket.IPPROTO_TCP:
        tcp = 14 + (frame[14] & 15) * 4
        end = 14 + struct.unpack_from("!H", frame, 16)[0]
        hop_limit, ip_id = frame[22], struct.unpack_from("!H", frame, 18)[0]
        source = socket.inet_ntop(socket.AF_INET, frame[26:30])
        destination = socket.inet_ntop(socket.AF_INET, frame[30:34])
    elif kind == b"\x86\xdd" and socket.IPPROTO_TCP in (frame[20], is_fragment(frame) and frame[54]):
        tcp, end = 62 if is_fragment(frame) else 54, 54 + struct.unpack_from("!H", frame, 18)[0]
        hop_limit, ip_id = frame[21], None
        source = socket.inet_ntop(socket.AF_INET6, frame[22:38])
        destination = socket.inet_ntop(socket.AF_INET6, frame[38:54])
    else:
        return None
    sport, dport, seq, ack, offset, flags, window = struct.unpack_from("!HHIIBBH", frame, tcp)
    payload = tcp + (offset >> 4) * 4
    return Segment(
        interface, way, source, sport, destination, dport, flags, seq, ack, window, hop_limit,
        ip_id, bytes(frame[tcp + 20:payload]), end - payload, frame[6:12].hex(":"), time.monotonic(),
    )


def timestamps(options):
    """(TSval, TSecr) of a segment's options, or None."""
    while options and options[0] != 0:
        if options[0] == 1:
            options = options[1:]
            continue
        if options[0] == 8:
            return struct.unpack("!II", options[2:10])
        options = options[options[1]:]
    return None


def build(source_mac, destination_mac, source, source_port, destination, destination_port, flags,
          seq, ack=0, window=0, hop_limit=64, ip_id=0, options=b"", dont_fragment=True, payload=b"",
          behind=False):
    """An Ethernet frame with right checksums. `behind`: the segment is behind headers that nobody needs, four
    IP options that do nothing, or a fragment header of a whole packet (RFC 6946)."""
    options += b"\1" * (-len(options) % 4)
    tcp = struct.pack(
        "!HHIIBBHHH", source_port, destination_port, seq & 0xFFFFFFFF, ack & 0xFFFFFFFF,
        (20 + len(options)) << 2, flags, window, 0, 0,
    ) + options + payload
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    ends = socket.inet_pton(family, source) + socket.inet_pton(family, destination)
    if family == socket.AF_INET6:
        pseudo = ends + struct.pack("!II", len(tcp), socket.IPPROTO_TCP)
        kind = b"\x86\xdd"
        more = struct.pack("!BBHI", socket.IPPROTO_TCP, 0, 0, 0x7E57) if behind else b""
        kinds = socket.IPPROTO_FRAGMENT if behind else socket.IPPROTO_TCP
        ip = struct.pack("!IHBB", 6 << 28, len(more + tcp), kinds, hop_limit) + ends + more
    else:
        pseudo = ends + struct.pack("!BBH", 0, socket.IPPROTO_TCP, len(tcp))
        kind = b"\x08\x00"
        more = b"\1\1\1\1" if behind else b""
        ip = struct.pack(
            "!BBHHHBBH", 0x45 + len(more) // 4, 0, 20 + len(more + tcp), ip_id & 0xFFFF,
            0x4000 if dont_fragment else 0, hop_limit, socket.IPPROTO_TCP, 0,
        ) + ends + more
        ip = ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:]
    tcp = tcp[:16] + struct.pack("!H", checksum(pseudo + tcp)) + tcp[18:]
    return mac_bytes(destination_mac) + mac_bytes(source_mac) + kind + ip + tcp


class Tap:
    """A raw socket on one interface of a namespace, or on all of them: sees and sends frames."""

    def __init__(self, lab, namespace, interface=None):
        with lab.inside(namespace):
            self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
            if interface:
                self.socket.bind((interface, ETH_P_ALL))
        self.seen = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, frame):
        self.socket.send(frame)

    def read(self, seconds=0.0):
        """Reads what has arrived, waiting at most `seconds` for the first; returns the new."""
        new = []
        while select.select([self.socket], [], [], 0 if new else seconds)[0]:
            frame, (interface, _, kind, _, _) = self.socket.recvfrom(65535)
            segment = parse(frame, interface, "out" if kind == PACKET_OUTGOING else "in")
            if segment:
                new.append((segment, frame))
        self.seen += new
        return [segment for segment, _ in new]

    def last(self, source, destination):
        """The last segment seen from one endpoint (address, port) to another."""
        self.read()
        for segment, _ in reversed(self.seen):
            if (segment.source, segment.source_port) == source[:2] \
                    and (segment.destination, segment.destination_port) == destination[:2]:
                return segment
        raise LookupError(f"no segment from {source} to {destination} was seen")

    def await_data(self, endpoint, seconds=1.0):
        """Waits for new payload to (address, port)."""
        end = time.monotonic() + seconds
        self.read()
        while time.monotonic() < end:
            for segment in self.read(end - time.monotonic()):
                if (segment.destination, segment.destination_port) == endpoint[:2] \
                        and segment.length:
                    return segment
        raise LookupError(f"no data to {endpoint} was seen")

    def await_flags(self, endpoint, flags, mask=SYN | ACK | RST | FIN, seconds=1.0):
        """Waits for a segment to (address, port) with these flags; returns it and its frame."""
        end = time.monotonic() + seconds
        while True:
            for segment, frame in self.seen:
                if (segment.destination, segment.destination_port) == endpoint[:2] \
                        and segment.flags & mask == flags:
                    return segment, frame
            if time.monotonic() >= end:
                raise LookupError(f"no such segment to {endpoint} was seen")
            self.read(end - time.monotonic())
