"""Everyday traffic of the lab: clients that talk real HTTP through HAProxy.

    background.py --lab PREFIX [--seed N]

Begins as many connections as each number on its standard input says, and waits for them when that
ends. Most fetch one page; some keep the connection and fetch several; a few abort, before or after
the answer, and of these it prints one JSON object a line, as scenarios.py does: the client did it.
The last line sums up.
"""

import argparse
import asyncio
import json
import random
import socket
import struct
import sys

from peer import Lab, address

CLOSING, KEEPING = 8080, 8083
#: A client that takes this long has found the proxy hanging.
PATIENCE = 20
#: Connections under way at once; the rest wait their turn.
CROWD = 200
GET = b"GET / HTTP/1.1\r\nHost: lab\r\n\r\n"


class Background:
    """The connections, what went wrong with them, and what the aborting ones promise."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.crowd = asyncio.Semaphore(CROWD)
        self.done, self.failed, self.reason, self.promises = 0, 0, "", []

    def habit(self):
        return self.random.choices(
            (self.short, self.keeping, self.abort_waiting, self.abort_idle), (70, 20, 5, 5))[0]

    async def connection(self):
        family = self.random.choice((4, 6))
        async with self.crowd:
            try:
                await asyncio.wait_for(self.habit()(address("lb", family)), PATIENCE)
            except (OSError, asyncio.TimeoutError, asyncio.IncompleteReadError) as error:
                self.failed += 1
                self.reason = self.reason or repr(error)
        self.done += 1

    async def page(self, reader, writer):
        writer.write(GET)
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(len(b"backend\n"))
        if not head.startswith(b"HTTP/1.1 200"):
            raise ConnectionError(f"answer {head[:40]!r}")

    async def short(self, host):
        """One page; the proxy closes."""
        reader, writer = await asyncio.open_connection(host, CLOSING)
        await self.page(reader, writer)
        if await reader.read():
            raise ConnectionError("more than one answer")
        writer.close()
        await writer.wait_closed()

    async def keeping(self, host):
        """Some pages over one connection; the client closes."""
        reader, writer = await asyncio.open_connection(host, KEEPING)
        for _ in range(self.random.randrange(2, 6)):
            await self.page(reader, writer)
            await asyncio.sleep(self.random.random() * 0.3)
        writer.close()
        await writer.wait_closed()

    async def abort_waiting(self, host):
        """The client gives up before the answer."""
        _, writer = await asyncio.open_connection(host, KEEPING)
        writer.write(GET[:20])
        await asyncio.sleep(self.random.random() * 0.1)
        self.abort(writer)

    async def abort_idle(self, host):
        """The client aborts a connection that it kept."""
        reader, writer = await asyncio.open_connection(host, KEEPING)
        await self.page(reader, writer)
        await asyncio.sleep(self.random.random() * 0.1)
        self.abort(writer)

    def abort(self, writer):
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        here, there = sock.getsockname(), sock.getpeername()
        self.promises.append({
            "scenario": "background_abort" + ("_v6" if ":" in here[0] else ""),
            "story": "a client of the proxy",
            "source": here[0], "source_port": here[1],
            "destination": there[0], "destination_port": there[1],
            "expect_verdict": "remote", "expect_cause": ["abort"],
        })
        writer.transport.abort()


async def serve(background):
    numbers = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(numbers), sys.stdin)
    begun = set()
    while line := await numbers.readline():
        begun |= {asyncio.create_task(background.connection()) for _ in range(int(line))}
        begun = {task for task in begun if not task.done()}
    await asyncio.gather(*begun)


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--lab", required=True)
    arguments.add_argument("--seed", type=int, default=1)
    given = arguments.parse_args()
    background = Background(given.seed)
    with Lab(given.lab).inside("cl"):
        asyncio.run(serve(background))
    for promise in background.promises:
        print(json.dumps(promise))
    print(json.dumps({"connections": background.done, "failed": background.failed,
                      "reason": background.reason}))
    return 1 if background.failed else 0


if __name__ == "__main__":
    sys.exit(main())
