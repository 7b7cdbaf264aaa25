"""Scenarios: what third parties do in an endpoint's name."""

import contextlib
import errno
import random
import socket
import struct
import time

import forge
from forge import ACK, RST, SYN
from peer import abort, address, receive, talk, vanish
from plays import (
    BACKEND, CLIENT, CLIENT_HOP_LIMIT, DEVICE, DN0, NEIGHBOR,
    ROUTER_CLIENT, ROUTER_UP, UP0, free_port, scenario,
)


def forged(link, tap, flags=RST, offset=0, **changes):
    """A frame in the client's name that is right in everything but what the caller changes."""
    genuine = tap.last(link.near_end, link.far_end)
    answer = tap.last(link.far_end, link.near_end)
    fields = {
        "source_mac": ROUTER_UP, "destination_mac": UP0, "hop_limit": CLIENT_HOP_LIMIT,
        "seq": genuine.seq + genuine.length + offset,
        "ack": answer.seq + answer.length if flags & ACK else 0,
        "window": 0, "ip_id": 0,
        **changes,
    }
    macs = fields.pop("source_mac"), fields.pop("destination_mac")
    return forge.build(*macs, *link.near_end, *link.far_end, flags, **fields)


def like_the_client(link, tap):
    """IP ID, window and options as the client's own abort would bear them."""
    genuine = tap.last(link.near_end, link.far_end)
    stamps = forge.timestamps(genuine.options)
    options = b"\1\1\x08\x0a" + struct.pack("!II", stamps[0] + 10, stamps[1]) if stamps else b""
    return {"window": genuine.window, "ip_id": (genuine.ip_id or 0) + 1, "options": options}


def still_alive(link):
    """The connection survived: it carries data both ways, and is closed in order."""
    drain(link.far)
    link.greet()
    link.near.close()
    time.sleep(0.01)
    link.far.close()


def drain(sock):
    sock.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while sock.recv(65536):
            pass
    sock.settimeout(3)


def gone(link):
    """Both ends leave without a word, so that the forged reset stands alone."""
    vanish(link.near)
    vanish(link.far)


def assert_reset(sock, error=errno.ECONNRESET, pause=0.02):
    """The forged reset did its work, within a second however busy this machine is."""
    end = time.monotonic() + 1
    time.sleep(pause)
    while not (found := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)):
        assert time.monotonic() < end, "not reset"
        time.sleep(0.005)
    assert found == error, f"error {found}"


@scenario
def forged_wrong_ttl(play):
    """A third party on the path: exact sequence number, another hop limit."""
    link = play.connection()
    with play.tap("rt", "br0") as tap:
        link.greet()
        tap.send(forged(link, tap, hop_limit=117, window=512, ip_id=4660))
    assert_reset(link.far)
    play.expect(link.near_end, link.far_end, "injected", *DEVICE, hop_limit=117,
                story="a third party, wrong TTL")
    gone(link)


@scenario
def older_forged_then_silent(play):
    """The same as `RA`, of a connection that is older than the sensor; nothing comes after it."""
    link = play.connection()
    yield
    with play.tap("rt", "br0") as tap:
        link.greet()
        tap.send(forged(link, tap, RST | ACK, hop_limit=117, window=512, ip_id=4660))
    assert_reset(link.far)
    play.expect(link.near_end, link.far_end, "injected", *DEVICE, hop_limit=117,
                story="a third party, wrong TTL")
    gone(link)


@scenario
def forged_behind_headers(play):
    """The same, behind IP options or a fragment header: the kernel takes it, whatever stands before it."""
    link = play.connection()
    with play.tap("rt", "br0") as tap:
        link.greet()
        tap.send(forged(link, tap, hop_limit=117, window=512, ip_id=4660, behind=True))
    assert_reset(link.far)
    play.expect(link.near_end, link.far_end, "injected", *DEVICE, hop_limit=117,
                story="a third party, behind headers that nobody needs")
    gone(link)


@scenario
def forged_then_gives_up(play):
    """A forged reset breaks the connection; the client waits for an answer, then gives up with a
    reset of its own, long after the first one was recorded."""
    link = play.connection()
    with play.tap("rt", "br0") as tap:
        link.greet()
        time.sleep(0.1)  # its last acknowledgment would be answered, and tell it
        tap.send(forged(link, tap, hop_limit=117, window=512, ip_id=4660))
    assert_reset(link.far)
    play.expect(link.near_end, link.far_end, "injected", *DEVICE, hop_limit=117,
                story="a third party, wrong TTL")
    link.far.close()
    time.sleep(2.2)
    abort(link.near)
    play.expect(link.near_end, link.far_end, "remote", "consequence", hop_limit=CLIENT_HOP_LIMIT,
                story="the client, who never heard of the forged one")


@scenario
def forged_wrong_ttl_ack(play):
    """The same as `RA` with everything else like the client's own abort."""
    link = play.connection()
    with play.tap("rt", "br0") as tap:
        link.greet()
        tap.send(forged(link, tap, RST | ACK, **like_the_client(link, tap), hop_limit=44))
    assert_reset(link.far)
    play.expect(link.near_end, link.far_end, "injected", *DEVICE, hop_limit=44,
                story="a third party, wrong TTL")
    gone(link)


@scenario
def forged_right_ttl_talking(play):
    """Right in everything, but the client goes on talking."""
    link = play.connection()
    with play.tap("rt", "br0") as tap:
        link.greet()
        tap.send(forged(link, tap, RST | ACK, **like_the_client(link, tap)))
        assert_reset(link.far)
        talk(link.near)
    play.expect(link.near_end, link.far_end, "injected", *DEVICE, hop_limit=CLIENT_HOP_LIMIT,
                story="a third party, right TTL")
    link.close()


@scenario
def forged_burst(play):
    """Three resets with rising hop limit, window and sequence number."""
    link = play.connection()
    with play.tap("rt", "br0") as tap:
        link.greet()
        for step, offset in enumerate((0, 1460, 4380)):
            tap.send(forged(link, tap, RST | ACK, offset, hop_limit=90 + step,
                            window=2000 + step * 17, ip_id=30000 + step * 1111))
    assert_reset(link.far)
    play.expect(link.near_end, link.far_end, "injected", *DEVICE, hop_limit=90,
                story="a third party, a train of three")
    gone(link)


@scenario
def blind_in_window(play):
    """One guess that hits the window and is challenged; the connection lives."""
    link = play.connection()
    with play.tap("rt", "br0") as tap:
        link.greet()
        tap.send(forged(link, tap, RST, 5000, hop_limit=51, ip_id=random.randrange(65536)))
    talk(link.near)
    play.expect(link.near_end, link.far_end, "injected", "blind", hop_limit=51,
                story="a third party that guesses")
    still_alive(link)


@scenario
def blind_sweep(play):
    """Forty guesses in steps, none exact; the connection lives."""
    link = play.connection()
    with play.tap("rt", "br0") as tap:
        link.greet()
        for step in range(40):
            tap.send(forged(link, tap, RST, 777 + (step - 10) * 30000, hop_limit=51,
                            ip_id=random.randrange(65536)))
    play.expect(link.near_end, link.far_end, "injected", "blind", hop_limit=51,
                story="a third party that guesses")
    time.sleep(0.02)
    still_alive(link)


@scenario
def adjacent(play):
    """A neighbor on the segment, exact sequence number and hop limit, its own MAC."""
    # A MAC is strange only beside a usual one: 16 segments of the client's (`evidence::link`).
    for _ in range(10):
        with contextlib.ExitStack() as stack:
            other = play.connection()
            stack.callback(other.far.close)
            stack.callback(other.near.close)
    link = play.connection()
    with play.tap("rt", "br0") as tap, play.tap("nb", "n0") as wire:
        link.greet()
        wire.send(forged(link, tap, RST | ACK, source_mac=NEIGHBOR, **like_the_client(link, tap)))
    assert_reset(link.far)
    play.expect(link.near_end, link.far_end, "injected", "adjacent", hop_limit=CLIENT_HOP_LIMIT,
                story="a neighbor on the segment")
    gone(link)


@scenario
def syn_race(play):
    """A forged refusal overtakes the true SYN-ACK."""
    listener = play.lab.socket("cl", play.family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((address("cl", play.family), 9031))
    listener.listen(8)
    there = listener.getsockname()[:2]
    sock = play.lab.socket("lb", play.family)
    with listener, sock, play.tap("rt", "br0") as tap, play.tap("rt", "r0") as onward:
        sock.setblocking(False)
        sock.connect_ex(there)
        syn, frame = tap.await_flags(there, SYN)
        here = (syn.source, syn.source_port)
        tap.send(forge.build(ROUTER_UP, UP0, *there, *here, RST | ACK, 0, syn.seq + 1, hop_limit=44))
        assert_reset(sock, errno.ECONNREFUSED, pause=0.005)
        onward.send(forge.mac_bytes(CLIENT) + forge.mac_bytes(ROUTER_CLIENT) + frame[12:])
        tap.await_flags(here, SYN | ACK)
        time.sleep(0.02)
    play.expect(there, here, "injected", *DEVICE, hop_limit=44,
                story="a third party that answered first")


@scenario
def forged_from_backend(play):
    """A third party in front of the backend: exact sequence number, another hop limit."""
    link = play.connection("lb", "be", greet=False)
    with play.tap("be", "b0") as tap:
        link.greet()
        genuine = tap.last(link.far_end, link.near_end)
        tap.send(forge.build(BACKEND, DN0, *link.far_end, *link.near_end, RST,
                             genuine.seq + genuine.length, hop_limit=38, ip_id=777))
    assert_reset(link.near)
    play.expect(link.far_end, link.near_end, "injected", *DEVICE, hop_limit=38,
                story="a third party, wrong TTL")
    gone(link)


@scenario
def older_forged_wrong_ttl(play):
    """Wrong hop limit on a connection older than the sensor; the client goes on talking."""
    link = play.connection()
    yield
    with play.tap("rt", "br0") as tap:
        link.greet()
        tap.send(forged(link, tap, hop_limit=117, window=512, ip_id=4660))
        assert_reset(link.far)
        talk(link.near)
    play.expect(link.near_end, link.far_end, "injected", *DEVICE, hop_limit=117,
                story="a third party, wrong TTL")
    link.close()


@scenario
def older_forged_silent(play):
    """Wrong hop limit on a connection older than the sensor, and nothing after it: only what is
    known of the path tells."""
    link = play.connection()
    yield
    with play.tap("rt", "br0") as tap:
        link.greet()
        tap.send(forged(link, tap, hop_limit=117, window=512, ip_id=4660))
    assert_reset(link.far)
    play.expect(link.near_end, link.far_end, "injected", *DEVICE, hop_limit=117,
                story="a third party, wrong TTL")
    gone(link)


@scenario
def consequence(play):
    """The forged reset went to the client only; its kernel answers this host's data."""
    link = play.connection()
    with play.tap("rt", "br0") as tap, play.tap("rt", "r0") as wire:
        link.greet()
        genuine = tap.last(link.far_end, link.near_end)
        wire.send(forge.build(ROUTER_CLIENT, CLIENT, *link.far_end, *link.near_end, RST,
                              genuine.seq + genuine.length, hop_limit=44))
    assert_reset(link.near)
    link.far.sendall(b"are you there\n")
    time.sleep(0.02)
    play.expect(link.near_end, link.far_end, "remote", "answer", "consequence",
                hop_limit=CLIENT_HOP_LIMIT, story="the client's kernel, after a forged reset")
    link.close()


@scenario
def router_reject(play):
    """The router rejects this host's data in the client's name; the client goes on talking."""
    link = play.connection(port=9011, greet=False)
    link.near.sendall(b"hello\n")
    receive(link.far, 6)
    link.far.sendall(b"rejected on the way\n")
    assert_reset(link.far)
    talk(link.near)
    play.expect(link.near_end, link.far_end, "injected", *DEVICE, hop_limit=64,
                story="the router, in the client's name")
    link.close()


@scenario
def stray_reset(play):
    """Backscatter: a reset of no connection, from a stranger."""
    here = (("198.51.100.7", "2001:db8::7")[play.family == 6], free_port())
    there = (address("lb", play.family), free_port())
    with play.tap("rt", "br0") as tap:
        tap.send(forge.build(ROUTER_UP, UP0, *here, *there, RST | ACK, random.randrange(1 << 32),
                             random.randrange(1 << 32), hop_limit=50))
    play.expect(here, there, "stray", hop_limit=50, story="nobody we know of")
