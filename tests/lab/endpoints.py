"""Scenarios: what the endpoints themselves and this host's own firewall and proxy do."""

import contextlib
import socket
import subprocess
import time

import forge
from forge import ACK, RST, SYN
from peer import abort, address, leave_with, receive, vanish, window_of
from plays import CLIENT_HOP_LIMIT, ROUTER_UP, UP0, free_port, scenario


@scenario
def client_abort(play):
    """The client aborts (SO_LINGER 0)."""
    link = play.connection()
    abort(link.near)
    play.expect(link.near_end, link.far_end, "remote", "abort", story="the client")
    time.sleep(0.02)
    link.far.close()


@scenario
def client_abort_by_a_new_route(play):
    """The route from the client grows by four hops; new connections show it, then an older one is aborted."""
    def by(hop_limit):
        return play.connection(caller="cl-moving", hop_limit=hop_limit)

    link = by(64)
    for hop_limit in (64, 64, 60, 60):
        by(hop_limit).close()
    leave_with(link.near, 60)
    abort(link.near)
    play.expect(link.near_end, link.far_end, "remote", "abort", hop_limit=CLIENT_HOP_LIMIT - 4,
                story="the client, by its new route")
    time.sleep(0.02)
    link.far.close()


@scenario
def client_abort_unread(play):
    """The client closes with unread data."""
    link = play.connection()
    link.far.sendall(b"never read\n")
    time.sleep(0.02)
    link.near.close()
    play.expect(link.near_end, link.far_end, "remote", "abort", story="the client")
    time.sleep(0.02)
    link.far.close()


@scenario
def closed_port(play):
    """The client calls a port on which nobody listens."""
    there = (address("lb", play.family), 9001)
    here = play.refused("cl", there)
    play.expect(there, here, "local", "kernel", story="the kernel of this host")


@scenario
def process_unread(play):
    """A process on the load balancer host closes with unread data."""
    link = play.connection()
    link.near.sendall(b"never read\n")
    time.sleep(0.02)
    link.far.close()
    play.expect(link.far_end, link.near_end, "local", "process", story="a process of this host")
    time.sleep(0.02)
    link.near.close()


@scenario
def process_abort(play):
    """A process on the load balancer host aborts (SO_LINGER 0)."""
    link = play.connection()
    abort(link.far)
    play.expect(link.far_end, link.near_end, "local", "process", story="a process of this host")
    time.sleep(0.02)
    link.near.close()


@scenario
def listener_close(play):
    """A listener closes while a connection waits to be accepted."""
    listener = play.lab.socket("lb", play.family)
    listener.bind((address("lb", play.family), 0))
    listener.listen(8)
    there = listener.getsockname()[:2]
    with play.lab.socket("cl", play.family) as near:
        near.connect(there)
        here = near.getsockname()[:2]
        time.sleep(0.02)
        listener.close()
        time.sleep(0.02)
    play.expect(there, here, "local", "process", story="a process of this host")


@scenario
def socket_killed(play):
    """An administrator kills a socket of the load balancer host (ss -K)."""
    link = play.connection()
    done = subprocess.run(
        ["ip", "netns", "exec", play.lab.prefix + "lb", "ss", "-K", "-t", "-n", "-H",
         f"sport = :{link.far_end[1]} and dport = :{link.near_end[1]}"],
        check=True, capture_output=True, text=True)
    assert str(link.near_end[1]) in done.stdout, "this kernel cannot kill sockets"
    play.expect(link.far_end, link.near_end, "local", "process", "kernel", story="ss on this host")
    time.sleep(0.02)
    link.close()


@scenario
def keepalive_failure(play):
    """The client no longer answers the load balancer host's keepalive probes (takes 2 s)."""
    link = play.connection(port=9020, greet=False)
    for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT):
        link.far.setsockopt(socket.IPPROTO_TCP, option, 1)
    link.far.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    link.far.settimeout(5)
    with contextlib.suppress(OSError):
        link.far.recv(1)
    play.expect(link.far_end, link.near_end, "local", "kernel", story="the kernel of this host")
    vanish(link.near)


@scenario
def stray_ack_to_listener(play):
    """A segment of no connection arrives at a listening port."""
    there, here = (address("lb", play.family), 8080), (address("cl", play.family), free_port())
    with play.tap("rt", "br0") as tap:
        tap.send(forge.build(ROUTER_UP, UP0, *here, *there, ACK, 1000, 2000, 500, CLIENT_HOP_LIMIT))
        tap.await_flags(here, RST, RST | SYN)
    play.expect(there, here, "local", "kernel", story="the kernel of this host")


@scenario
def late_data(play):
    """The client goes on sending after a process of the load balancer host has closed."""
    link = play.connection()
    link.far.close()
    time.sleep(0.02)
    link.near.sendall(b"too late\n")
    time.sleep(0.02)
    link.near.close()
    play.expect(link.far_end, link.near_end, "local", "kernel", "process",
                story="the kernel of this host")


@scenario
def firewall_syn(play):
    """nftables rejects a connection with a reset."""
    there = (address("lb", play.family), 9009)
    here = play.refused("cl", there)
    play.expect(there, here, "local", "firewall", story="the firewall of this host")


@scenario
def firewall_data(play):
    """nftables rejects data of an open connection with a reset."""
    link = play.connection(port=9010, greet=False)
    link.near.sendall(b"rejected\n")
    time.sleep(0.02)
    play.expect(link.far_end, link.near_end, "local", "firewall", story="the firewall of this host")
    link.near.close()
    vanish(link.far)


@scenario
def backend_refused(play):
    """The load balancer host calls a backend port on which nobody listens."""
    there = (address("be", play.family), 9002)
    here = play.refused("lb", there, "lb-dn")
    play.expect(there, here, "remote", "refused", story="the backend")


@scenario
def client_refused(play):
    """The load balancer host calls a closed port behind the router."""
    there = (address("cl", play.family), 9003)
    here = play.refused("lb", there)
    play.expect(there, here, "remote", "refused", story="the host behind the router")


@scenario
def backend_abort(play):
    """The backend aborts the load balancer host's connection."""
    link = play.connection("lb", "be")
    abort(link.far)
    play.expect(link.far_end, link.near_end, "remote", "abort", story="the backend")
    time.sleep(0.02)
    link.near.close()


@scenario
def client_closed_then_data(play):
    """The client closed in order; data that arrives afterwards is answered by its kernel."""
    link = play.connection()
    link.near.close()
    time.sleep(0.02)
    link.far.sendall(b"too late\n")
    time.sleep(0.02)
    link.far.close()
    play.expect(link.near_end, link.far_end, "remote", "answer", "abort",
                story="the client's kernel")


@scenario
def client_lost_its_state(play):
    """The client's host no longer knows the connection and answers data with a reset."""
    link = play.connection()
    vanish(link.near)
    link.far.sendall(b"who are you\n")
    time.sleep(0.02)
    link.far.close()
    play.expect(link.near_end, link.far_end, "remote", "answer", story="the client's kernel")


@scenario
def client_gone_when_read(play):
    """The client's host no longer knows the connection; a process reads late what it sent, and the window's update is answered."""
    with play.lab.socket("lb", play.family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32768)
        listener.bind((address("lb", play.family), 0))
        listener.listen(1)
        near = play.lab.socket("cl", play.family)
        near.connect(listener.getsockname()[:2])
        far, _ = listener.accept()
    here, there = near.getsockname()[:2], far.getsockname()[:2]
    far.settimeout(3)
    far.sendall(b"hello\n")
    receive(near, 6)
    sent = 0
    # Little of the window is left, so that a read opens twice as much, and all of this has arrived.
    while window_of(near) > 4 * 1400:
        near.sendall(b"x" * 1400)
        sent += 1400
        assert sent < 1 << 20, "the window does not fill"
        time.sleep(0.001)
    time.sleep(0.5)
    vanish(near)
    with contextlib.suppress(ConnectionResetError):
        receive(far, sent + 1)
    far.close()
    play.expect(here, there, "remote", "answer", story="the client's kernel")


@scenario
def proxy_client_reset(play):
    """The client aborts a connection that HAProxy relays; HAProxy resets the backend."""
    with play.lab.proxy:
        listener = play.lab.socket("be", play.family)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address("be", play.family), 8181))
        listener.listen(8)
        near = play.lab.socket("cl", play.family)
        near.connect((address("lb", play.family), 8081))
        near.sendall(b"hello\n")
        far, leg = listener.accept()
        listener.close()
    far.settimeout(3)
    receive(far, 6)
    far.sendall(b"hello\n")
    receive(near, 6)
    here, there = near.getsockname()[:2], near.getpeername()[:2]
    backend = far.getsockname()[:2]
    abort(near)
    try:
        far.recv(1)
    except ConnectionResetError:
        play.expect(leg[:2], backend, "forwarded", "proxy", story="the client, through HAProxy",
                    other_leg=(here, there))
    far.close()
    play.expect(here, there, "remote", "abort", story="the client", other_leg=(leg[:2], backend))
    assert len(play.promises) == 2, "HAProxy did not reset the backend"


@scenario
def proxy_backend_refused(play):
    """HAProxy's backend is refused; HAProxy resets its client, whose data it never read."""
    with play.lab.proxy, play.tap("be", "b0") as tap, play.lab.socket("cl", play.family) as near:
        there = (address("lb", play.family), 8082)
        near.connect(there)
        here = near.getsockname()[:2]
        near.sendall(b"hello\n")
        call, _ = tap.await_flags((address("be", play.family), 8182), SYN)
        leg, backend = (call.source, call.source_port), (call.destination, call.destination_port)
        try:
            near.recv(1)
        except ConnectionResetError:
            play.expect(there, here, "forwarded", "proxy", story="the backend, through HAProxy",
                        other_leg=(backend, leg))
    play.expect(backend, leg, "remote", "refused", story="the backend", other_leg=(there, here))


@scenario
def router_client_abort(play):
    """A client's reset that this host only routes to the backend."""
    link = play.connection("cl", "be")
    abort(link.near)
    play.expect(link.near_end, link.far_end, "forwarded", "router",
                story="the client, routed by this host")
    time.sleep(0.02)
    link.far.close()


@scenario
def router_backend_abort(play):
    """A backend's reset that this host only routes to the client."""
    link = play.connection("cl", "be")
    abort(link.far)
    play.expect(link.far_end, link.near_end, "forwarded", "router",
                story="the backend, routed by this host")
    time.sleep(0.02)
    link.near.close()


@scenario
def older_client_abort(play):
    """The client aborts a connection that is older than the sensor."""
    link = play.connection()
    yield
    abort(link.near)
    play.expect(link.near_end, link.far_end, "remote", "abort", story="the client")
    time.sleep(0.02)
    link.far.close()


@scenario
def older_process_abort(play):
    """A process of the load balancer host aborts a connection that is older than the sensor."""
    link = play.connection()
    yield
    abort(link.far)
    play.expect(link.far_end, link.near_end, "local", "process", story="a process of this host")
    time.sleep(0.02)
    link.near.close()
