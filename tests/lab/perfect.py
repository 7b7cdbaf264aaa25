"""Scenarios: forged resets that are right in every field and did kill the connection. Only what the
true peer does afterwards tells.
"""

import contextlib
import socket
import threading
import time

import forge
from forge import ACK, RST
from forgeries import assert_reset, forged, like_the_client
from plays import BACKEND, CLIENT_HOP_LIMIT, DEVICE, DN0, scenario

STORY = "a third party, right in everything"


def perfect(link, tap, active):
    """A reset as the client itself would send it: its abort, or its kernel's answer."""
    if active:
        seen = tap.last(link.near_end, link.far_end)
        return forged(link, tap, RST | ACK, **{**like_the_client(link, tap), "ack": seen.ack})
    return forged(link, tap)


def upload(play, active):
    """The client sends all the time, a little every 5 ms."""
    link = play.connection()
    stop = threading.Event()

    def send():
        with contextlib.suppress(OSError):  # it is reset, as it must be
            while not stop.wait(0.005):
                link.near.sendall(b"x" * 300)

    def read():
        with contextlib.suppress(OSError):
            while link.far.recv(4096):
                pass

    with play.tap("rt", "br0") as tap:
        link.greet()
        threads = [threading.Thread(target=work, daemon=True) for work in (send, read)]
        for thread in threads:
            thread.start()
        time.sleep(0.05)
        # Its next segment may come before: then it is the one after that which must be hit.
        for _ in range(20):
            tap.send(perfect(link, tap, active))
            time.sleep(0.002)
            if not threads[1].is_alive():
                break
        threads[1].join(1)
        assert not threads[1].is_alive(), "not reset"
        time.sleep(0.05)
        stop.set()
        threads[0].join()
    play.expect(link.near_end, link.far_end, "injected", *DEVICE, hop_limit=CLIENT_HOP_LIMIT,
                story=STORY)
    link.close()


def download(play, active):
    """This host sends all the time; the client only acknowledges."""
    link = play.connection()

    def send():
        with contextlib.suppress(OSError):
            while True:
                link.far.sendall(b"x" * 20000)
                time.sleep(0.004)

    def read():
        with contextlib.suppress(OSError):
            while link.near.recv(65536):
                pass

    with play.tap("rt", "br0") as tap:
        link.greet()
        threads = [threading.Thread(target=work, daemon=True) for work in (send, read)]
        for thread in threads:
            thread.start()
        time.sleep(0.03)
        # The client's SEQ stands still; only between two bursts nothing would be under way.
        give_up = time.monotonic() + 5
        while threads[0].is_alive() and time.monotonic() < give_up:
            # No data: it is dead, or the machine is busy.
            with contextlib.suppress(LookupError):
                tap.await_data(link.near_end, 0.1)
                tap.send(perfect(link, tap, active))
            threads[0].join(0.002)
        threads[0].join(1)
        if threads[0].is_alive():
            # What goes on sending would spoil the plays that follow.
            link.far.shutdown(socket.SHUT_RDWR)
            raise AssertionError("not reset")
    time.sleep(0.05)
    play.expect(link.near_end, link.far_end, "injected", *DEVICE, hop_limit=CLIENT_HOP_LIMIT,
                story=STORY)
    link.far.close()
    with contextlib.suppress(OSError):
        link.near.shutdown(socket.SHUT_RDWR)
    threads[1].join(1)
    link.near.close()


def later(play, active, before, after, act):
    """The connection rests, is reset, rests again; then the client does something."""
    link = play.connection()
    with play.tap("rt", "br0") as tap:
        link.greet()
        time.sleep(before)
        tap.send(perfect(link, tap, active))
    assert_reset(link.far)
    time.sleep(after)
    act(link)
    time.sleep(0.05)
    play.expect(link.near_end, link.far_end, "injected", *DEVICE, hop_limit=CLIENT_HOP_LIMIT,
                story=STORY)
    link.close()


def more_data(link):
    link.near.sendall(b"still here\n")


def fin(link):
    link.near.close()


@scenario
def perfect_ra_upload(play):
    """The client's own abort in every field, in the middle of its upload."""
    upload(play, True)


@scenario
def perfect_r_upload(play):
    """The client's kernel's answer in every field, in the middle of its upload."""
    upload(play, False)


@scenario
def perfect_ra_download(play):
    """The client's own abort in every field, while it only acknowledges."""
    download(play, True)


@scenario
def perfect_r_download(play):
    """The client's kernel's answer in every field, while it only acknowledges."""
    download(play, False)


@scenario
def perfect_ra_idle(play):
    """The client's own abort in every field; the client sends 300 ms later."""
    later(play, True, 0.4, 0.3, more_data)


@scenario
def perfect_r_idle(play):
    """The client's kernel's answer in every field; the client sends 300 ms later."""
    later(play, False, 0.4, 0.3, more_data)


@scenario
def perfect_ra_closed(play):
    """The client's own abort in every field; the client closes in order 50 ms later."""
    later(play, True, 0, 0.05, fin)


@scenario
def perfect_r_closed(play):
    """The client's kernel's answer in every field; the client closes in order 50 ms later."""
    later(play, False, 0, 0.05, fin)


@scenario
def perfect_r_backend(play):
    """The backend's kernel's answer in every field; the backend goes on sending."""
    link = play.connection("lb", "be", greet=False)
    with play.tap("be", "b0") as tap:
        link.greet()
        genuine = tap.last(link.far_end, link.near_end)
        tap.send(forge.build(BACKEND, DN0, *link.far_end, *link.near_end, RST,
                             genuine.seq + genuine.length, hop_limit=64))
    assert_reset(link.near)
    time.sleep(0.02)
    link.far.sendall(b"still here\n")
    time.sleep(0.02)
    play.expect(link.far_end, link.near_end, "injected", *DEVICE, hop_limit=64, story=STORY)
    link.close()
