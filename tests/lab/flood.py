"""Connections that live through a flood, and resets forged on some of them in its midst.

    flood.py --lab PREFIX --connections 200 --forge 50

Prints `ready ADDRESS PORT` (the client's end of the first one) when all are established; forges one
reset for each line on standard input; at its end prints the promises, one JSON object a line, and
insists that every other connection still carries data both ways. What is to be forged is made before the
flood, whose answers would bury it.
"""

import argparse
import contextlib
import json
import socket
import sys
import time

from forgeries import assert_reset, forged, still_alive
from peer import Lab, vanish
from plays import DEVICE, Play


# struct tcp_info begins with the state; TCP_CLOSE, as a reset leaves it. Asking clears no error.
CLOSED = 7


def send_until_reset(out, frame, sock):
    """A flood may fill the wire, where our own frame finds no room either: then once more."""
    for _ in range(50):
        out.send(frame)
        for _ in range(20):
            if sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == CLOSED:
                return
            time.sleep(0.02)
    sys.exit("the forged reset does not arrive")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lab", required=True)
    parser.add_argument("--connections", type=int, default=200)
    parser.add_argument("--forge", type=int, default=50)
    given = parser.parse_args()
    lab = Lab(given.lab)
    play = Play(lab, "flood", 4)
    links, frames = [], []
    for number in range(given.connections):
        if number >= given.forge:
            links.append(play.connection())
            continue
        with play.tap("rt", "br0") as tap:
            link = play.connection()
            links.append(link)
            frames.append(forged(link, tap, hop_limit=117, window=512, ip_id=4660 + number))
    with lab.inside("rt"):
        # Protocol 0: it sends and hears nothing.
        out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    out.bind(("br0", 0))
    print("ready", *links[-1].near_end, *links[-1].far_end, flush=True)
    for link, frame in zip(links, frames):
        if not sys.stdin.readline():
            sys.exit("nobody wants the rest")
        send_until_reset(out, frame, link.far)
        play.expect(link.near_end, link.far_end, "injected", *DEVICE)
    sys.stdin.readline()
    for link in links[:given.forge]:
        assert_reset(link.far)
        vanish(link.near)
        with contextlib.suppress(OSError):
            vanish(link.far)
    for link in links[given.forge:]:
        still_alive(link)
    for promise in play.promises:
        print(json.dumps(promise), flush=True)


if __name__ == "__main__":
    main()
