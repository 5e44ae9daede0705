"""A line to a server: each request waits once, and what passes is counted.

The proxy understands as much of HTTP/1.1 as it takes to see where requests and answers end, so
that connections stay open on both sides. Setting a connection up costs nothing extra here; on a
real line it costs one round trip more, and TLS another.
"""

import asyncio
import threading

CHUNK = 1 << 16
# The first byte of a handshake.
TLS = b"\x16"


class Line:
    """Runs in a thread of its own until the program ends."""

    def __init__(self, upstream, seconds):
        self.host, port = upstream.split(":")
        self.port, self.seconds = int(port), seconds
        self.reset()
        self.loop = asyncio.new_event_loop()
        ready = threading.Event()
        threading.Thread(target=self._run, args=(ready,), daemon=True).start()
        ready.wait()

    def reset(self):
        self.requests = self.up = self.down = self.connections = 0

    def _run(self, ready):
        asyncio.set_event_loop(self.loop)
        server = self.loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % server.sockets[0].getsockname()[1]
        ready.set()
        self.loop.run_forever()

    async def _serve(self, client, to_client):
        self.connections += 1
        server, to_server = await asyncio.open_connection(self.host, self.port)
        try:
            while await self._exchange(client, to_client, server, to_server):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            to_server.close()
            to_client.close()

    async def _exchange(self, client, to_client, server, to_server):
        """One request and its answer; whether the connection stays."""
        first = await client.readexactly(1)
        if first == TLS:
            # Whoever tries TLS first must be told at once, as a real server would.
            return False
        head = first + await client.readuntil(b"\r\n\r\n")
        self.requests += 1
        await asyncio.sleep(self.seconds)
        to_server.write(head)
        fields = parse(head)
        if fields.get("expect", "").lower() == "100-continue":
            await to_server.drain()
            to_client.write(await server.readuntil(b"\r\n\r\n"))
        self.up += await body(client, to_server, fields)
        while True:
            answer = await server.readuntil(b"\r\n\r\n")
            to_client.write(answer)
            status = int(answer.split(b" ", 2)[1])
            if status >= 200:
                break
        answered = parse(answer)
        stays = "close" not in (fields.get("connection", "") + answered.get("connection", "")).lower()
        if head.startswith(b"HEAD ") or status in (204, 304):
            await to_client.drain()
            return stays
        if "content-length" not in answered and "transfer-encoding" not in answered:
            self.down += await rest(server, to_client)
            return False
        self.down += await body(server, to_client, answered)
        return stays


def parse(head):
    lines = head.decode("latin-1").split("\r\n")[1:]
    pairs = (line.split(":", 1) for line in lines if ":" in line)
    return {name.strip().lower(): value.strip() for name, value in pairs}


async def body(source, target, fields):
    """Passes a body on; its size, without what chunks say about themselves."""
    if "chunked" not in fields.get("transfer-encoding", "").lower():
        return await exactly(source, target, int(fields.get("content-length", 0)))
    total = 0
    while True:
        line = await source.readuntil(b"\r\n")
        target.write(line)
        size = int(line.split(b";")[0], 16)
        total += await exactly(source, target, size)
        if size == 0:
            while line != b"\r\n":
                line = await source.readuntil(b"\r\n")
                target.write(line)
            await target.drain()
            return total
        target.write(await source.readexactly(2))


async def exactly(source, target, size):
    left = size
    while left:
        data = await source.read(min(left, CHUNK))
        if not data:
            raise ConnectionError("the connection ended within a body")
        left -= len(data)
        target.write(data)
        await target.drain()
    await target.drain()
    return size


async def rest(source, target):
    total = 0
    while data := await source.read(CHUNK):
        total += len(data)
        target.write(data)
        await target.drain()
    return total
