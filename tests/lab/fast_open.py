"""TCP Fast Open (RFC 7413): a server that answers with its first data before the handshake is over, and a
client whose SYN carries the request. `fast_open.py serve ADDRESS`, `fast_open.py ask ADDRESS COUNT`."""

import socket
import sys
import time

PORT = 8099
# linux/tcp.h; this Python does not know it.
TCP_FASTOPEN_CONNECT = 30
REQUEST, ANSWER = b"x" * 10, b"y" * 4000


def serve(address):
    listener = socket.create_server((address, PORT), backlog=128)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, 128)
    print("listening", flush=True)
    while True:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(ANSWER)
            connection.recv(100)


def ask(address):
    """One request; the milliseconds that it took."""
    begin = time.monotonic()
    with socket.socket() as connection:
        connection.settimeout(5)
        connection.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1)
        connection.connect((address, PORT))
        connection.sendall(REQUEST)
        left = len(ANSWER)
        while left:
            left -= len(connection.recv(left)) or sys.exit("the answer is short")
    return (time.monotonic() - begin) * 1000


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    times = sorted(ask(sys.argv[2]) for _ in range(int(sys.argv[3])))
    print(f"median {times[len(times) // 2]:.2f} ms, slowest {times[-1]:.2f} ms")
