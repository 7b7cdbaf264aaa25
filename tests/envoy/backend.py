"""A backend behind Envoy: of TCP one that resets or is silent as it is told, of HTTP one whose answer has no end."""

import socket
import struct
import threading
import time

ADDRESS = "10.88.2.2"
ABORT = struct.pack("ii", 1, 0)


def goes_on(connection):
    """Some bytes every 100 ms until nobody takes them."""
    try:
        for _ in range(100):
            connection.send(b"x" * 500)
            time.sleep(0.1)
    except OSError:
        pass
    connection.close()


def tcp(connection):
    if connection.recv(100).startswith(b"reset"):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
        connection.close()
    else:
        time.sleep(10)


def http(connection):
    connection.recv(4000)
    connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 900000\r\n\r\n")
    goes_on(connection)


def serve(listener, each):
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=each, args=(connection,), daemon=True).start()


def listen(port, each):
    listener = socket.create_server((ADDRESS, port))
    threading.Thread(target=serve, args=(listener, each), daemon=True).start()


listen(9001, tcp)
listen(9002, http)
print("listening", flush=True)
time.sleep(600)
