"""Scenarios on addresses that the load balancer host translates: its sockets and its frames have
different tuples."""

import contextlib
import os
import subprocess
import time

import forge
from forge import ACK, RST
from peer import abort, address
from plays import CLIENT_HOP_LIMIT, ROUTER_UP, UP0, free_port, scenario


@contextlib.contextmanager
def redirected(play, called, port):
    """What is called at one port meets the listener at another (nftables, DNAT to this host)."""
    table = f"lab{os.urandom(6).hex()}"
    rules = (f"add table inet {table}\n"
             f"add chain inet {table} pre {{ type nat hook prerouting priority dstnat; }}\n"
             f"add rule inet {table} pre tcp dport {called} redirect to :{port}\n")

    def nft(*words, rules=None):
        with play.lab.inside("lb"):
            subprocess.run(["nft", *words], input=rules, text=True, check=True)

    nft("-f", "-", rules=rules)
    try:
        yield
    finally:
        # Connections that are open stay translated, until they have ended.
        nft("delete", "table", "inet", table)


@scenario
def translated_process_abort(play):
    """A process aborts a connection whose port this host translates."""
    called, port = free_port(), free_port()
    with redirected(play, called, port):
        link = play.connection(port=port, called=called)
        abort(link.far)
        play.expect(link.far_end, link.near_end, "local", "process", story="a process of this host")
        time.sleep(0.05)
        link.near.close()


@scenario
def translated_abort_overtaken(play):
    """The same while two ACKs of the client are under way, which the kernel answers: three resets, three events."""
    called, port = free_port(), free_port()
    with redirected(play, called, port), play.tap("rt", "br0") as tap:
        link = play.connection(port=port, called=called)
        last = tap.last(link.near_end, link.far_end)
        abort(link.far)
        for _ in range(2):
            tap.send(forge.build(ROUTER_UP, UP0, *link.near_end, *link.far_end, ACK,
                                 last.seq + last.length, last.ack, last.window, CLIENT_HOP_LIMIT))
        tap.await_flags(link.near_end, RST, RST | ACK)
        play.expect(link.far_end, link.near_end, "local", "process", story="a process of this host")
        time.sleep(0.05)
        link.near.close()


@scenario
def older_translated_abort(play):
    """The client aborts a connection whose port this host translates; it is older than the sensor."""
    called, port = free_port(), free_port()
    with redirected(play, called, port):
        link = play.connection(port=port, called=called)
        yield
        abort(link.near)
        play.expect(link.near_end, link.far_end, "remote", "abort", story="the client")
        time.sleep(0.05)
        link.far.close()


@scenario
def translated_closed_port(play):
    """No listener at the port to which this host translates."""
    called, port = free_port(), free_port()
    with redirected(play, called, port):
        there = (address("lb", play.family), called)
        here = play.refused("cl", there)
        play.expect(there, here, "local", "kernel", story="the kernel of this host")
