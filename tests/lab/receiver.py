"""A SIEM by name: a name server, an HTTPS receiver of JSON lines and a TLS syslog receiver, all on
127.0.0.1 of the namespace that it runs in. What arrives goes to files, a record a line.

    receiver.py --folder DIR     with server.pem and server.key in it; writes https and syslog there

Python's standard library only.
"""

import argparse
import http.server
import pathlib
import socket
import ssl
import struct
import threading

HTTPS, SYSLOG, DNS = 8443, 6514, 53


def answer(question):
    """The answer to a query: 127.0.0.1 for A, nothing for all else."""
    end = 12
    while question[end]:
        end += question[end] + 1
    end += 5
    is_a = question[end - 4:end - 2] == b"\x00\x01"
    head = question[:2] + struct.pack("!HHHHH", 0x8180, 1, int(is_a), 0, 0)
    address = b"\xc0\x0c" + struct.pack("!HHIH4B", 1, 1, 1, 4, 127, 0, 0, 1) if is_a else b""
    return head + question[12:end] + address


def names():
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", DNS))
    while True:
        question, client = server.recvfrom(512)
        server.sendto(answer(question), client)


def handler(path):
    class Lines(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            with open(path, "ab") as out:
                out.write(body)
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    return Lines


def messages(stream, path):
    """Octet counting (RFC 5425): a length, a space, a message."""
    with stream, stream.makefile("rb") as bytes_in:
        while True:
            digits = b""
            while (byte := bytes_in.read(1)) not in (b" ", b""):
                digits += byte
            if not digits:
                return
            message = bytes_in.read(int(digits))
            with open(path, "ab") as out:
                out.write(message[message.index(b"{"):] + b"\n")


def serve(listener, context, path):
    while True:
        raw, _ = listener.accept()
        try:
            stream = context.wrap_socket(raw, server_side=True)
        except OSError:
            continue
        threading.Thread(target=messages, args=(stream, path), daemon=True).start()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=pathlib.Path, required=True)
    folder = parser.parse_args().folder
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem", folder / "server.key")
    threading.Thread(target=names, daemon=True).start()
    syslog = socket.create_server(("127.0.0.1", SYSLOG))
    threading.Thread(target=serve, args=(syslog, context, folder / "syslog"), daemon=True).start()
    https = http.server.ThreadingHTTPServer(("127.0.0.1", HTTPS), handler(folder / "https"))
    https.socket = context.wrap_socket(https.socket, server_side=True)
    print("ready", flush=True)
    https.serve_forever()


if __name__ == "__main__":
    main()
