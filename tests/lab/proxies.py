"""Scenarios: what proxies of this host make of a reset. HAProxy and nginx, in TCP and HTTP mode; what
each does is measured, not wished: a reset goes on as a reset, as a FIN, or as an error page.

Where it goes on, the promise of the reset names the leg that it went on by (`other_leg`), as this
host sees it: a record that names another one is wrong.
"""

import socket
import time

from forge import SYN
from peer import abort, address, receive
from plays import scenario

#: Port of the proxy, port of its backend.
NGINX_HTTP, NGINX_STREAM, NGINX_DEAD = (8090, 8190), (8091, 8191), (8092, 8192)
HAPROXY_TCP, HAPROXY_POOL, HAPROXY_SLOW = (8081, 8181), (8084, 8184), (8085, 8185)
GET = b"GET / HTTP/1.1\r\nHost: lab\r\n\r\n"
LAST_GET = GET[:-2] + b"Connection: close\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nbackend\n"


def call(play, port):
    sock = play.lab.socket("cl", play.family)
    sock.connect((address("lb", play.family), port))
    return sock


def request_of(sock):
    """The head of a request."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        data = sock.recv(1)
        if not data:
            raise ConnectionError("closed early")
        head += data


def end_of(sock):
    """How the other side ends the connection: "reset" or "fin", and what it said before."""
    said = b""
    try:
        while data := sock.recv(4096):
            said += data
    except ConnectionResetError:
        return "reset", said
    return "fin", said


class Proxied:
    """A connection through a proxy: the client's socket, the backend's, and where both legs end."""

    def __init__(self, play, ports, request=b""):
        front, back = ports
        with play.lab.proxy:
            listener = play.lab.socket("be", play.family)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((address("be", play.family), back))
            listener.listen(8)
            self.near = call(play, front)
            self.near.sendall(request or b"hello\n")
            self.far, leg = listener.accept()
            listener.close()
            self.far.settimeout(3)
            if request:
                request_of(self.far)
            else:
                receive(self.far, 6)
                self.far.sendall(b"hello\n")
                receive(self.near, 6)
        self.leg, self.backend = leg[:2], self.far.getsockname()[:2]
        self.meet(self.near)

    def meet(self, near):
        """Another client, whom the proxy lends the same connection to the backend."""
        self.near = near
        self.client, self.front = near.getsockname()[:2], near.getpeername()[:2]

    def close(self):
        self.near.close()
        self.far.close()


def client_aborts(play, link, story):
    """The client aborts; what becomes of the other leg is promised as it happened."""
    abort(link.near)
    how, _ = end_of(link.far)
    play.expect(link.client, link.front, "remote", "abort", story="the client",
                other_leg=(link.leg, link.backend))
    if how == "reset":
        play.expect(link.leg, link.backend, "forwarded", "proxy", story=story,
                    other_leg=(link.client, link.front))
    link.close()
    return how


def backend_aborts(play, link):
    """The backend aborts; the client's leg is closed in order. Returns what the client read."""
    abort(link.far)
    how, said = end_of(link.near)
    assert how == "fin", "the proxy reset its client"
    play.expect(link.backend, link.leg, "remote", "abort", story="the backend",
                other_leg=(link.front, link.client))
    link.close()
    return said


@scenario
def nginx_stream_client_reset(play):
    """The client aborts; nginx (stream) closes the backend's connection in order."""
    how = client_aborts(play, Proxied(play, NGINX_STREAM), "the client, through nginx")
    assert how == "fin", "nginx reset the backend"


@scenario
def nginx_stream_backend_reset(play):
    """The backend aborts; nginx (stream) closes the client's connection in order."""
    backend_aborts(play, Proxied(play, NGINX_STREAM))


@scenario
def nginx_stream_refused(play):
    """nginx's (stream) backend is refused; nginx resets its client, whose data it never read."""
    with play.lab.proxy, play.tap("be", "b0") as tap, play.lab.socket("cl", play.family) as near:
        there = (address("lb", play.family), NGINX_DEAD[0])
        near.connect(there)
        here = near.getsockname()[:2]
        # It is not to be refused before there is something to leave unread.
        near.sendall(b"hello\n")
        called, _ = tap.await_flags((address("be", play.family), NGINX_DEAD[1]), SYN)
        how, _ = end_of(near)
    leg, backend = (called.source, called.source_port), (called.destination, called.destination_port)
    if how == "reset":
        play.expect(there, here, "forwarded", "proxy", story="the backend, through nginx",
                    other_leg=(backend, leg))
    play.expect(backend, leg, "remote", "refused", story="the backend", other_leg=(there, here))


@scenario
def nginx_http_backend_reset(play):
    """The backend aborts before it answers; nginx's client gets an error page and a FIN."""
    said = backend_aborts(play, Proxied(play, NGINX_HTTP, GET))
    assert said.startswith(b"HTTP/1.1 502"), said[:40]


@scenario
def nginx_http_client_abort(play):
    """The client aborts while it waits; nginx closes the backend's connection in order."""
    how = client_aborts(play, Proxied(play, NGINX_HTTP, GET), "the client, through nginx")
    assert how == "fin", "nginx reset the backend"


@scenario
def haproxy_tcp_backend_reset(play):
    """The backend aborts; HAProxy in TCP mode closes the client's connection in order."""
    backend_aborts(play, Proxied(play, HAPROXY_TCP))


@scenario
def haproxy_time_out(play):
    """The backend stops in the middle of its answer; HAProxy gives it up, and closes its client's connection."""
    link = Proxied(play, HAPROXY_SLOW, GET)
    link.far.sendall(ANSWER[:-4])
    how, _ = end_of(link.far)
    assert how == "reset", "HAProxy closed the backend's connection in order"
    end_of(link.near)
    play.expect(link.leg, link.backend, "local", "process", story="HAProxy",
                other_leg=(link.front, link.client))
    link.close()


@scenario
def haproxy_http_backend_reset(play):
    """The backend aborts before it answers; HAProxy's client gets an error page and a FIN."""
    with pool(play):
        said = backend_aborts(play, Proxied(play, HAPROXY_POOL, LAST_GET))
    assert said.startswith(b"HTTP/1.1 502"), said[:40]


def pool(play):
    """Nobody else may be lent what is made here."""
    return play.lab.alone(f"pool-{play.family}")


def lent(play):
    """A connection to the backend that HAProxy made for one client, and lends to the next."""
    link = Proxied(play, HAPROXY_POOL, GET)
    link.far.sendall(ANSWER)
    request_of(link.near)
    receive(link.near, 8)
    link.near.close()
    time.sleep(0.02)
    return link


@scenario
def haproxy_pool_client_abort(play):
    """The client aborts while it waits for an answer by a connection that HAProxy lent it."""
    with pool(play):
        link = lent(play)
        second = call(play, HAPROXY_POOL[0])
        second.sendall(GET)
        request_of(link.far)
        link.meet(second)
        client_aborts(play, link, "the client, through HAProxy")


@scenario
def haproxy_pool_backend_reset(play):
    """The backend aborts a connection that HAProxy has lent to a second client."""
    with pool(play):
        link = lent(play)
        second = call(play, HAPROXY_POOL[0])
        second.sendall(LAST_GET)
        request_of(link.far)
        link.meet(second)
        backend_aborts(play, link)
