"""A SASE that forwards what it inspected, and the destination that it forwards to. Python's standard library only.

    sase.py serve HOST PORT       answers each request, on connections that stay, with the address that it is asked from
    sase.py forward JSON          opens tunnels from many source addresses, all at once, and asks many times through each

A SASE asks by CONNECT and keeps a tunnel for many requests; it writes the address of the user's device into X-Forwarded-For, of the CONNECT as well as of
what goes through the tunnel. What came of each tunnel is a line of JSON at the end.
"""

import asyncio
import json
import sys

PATIENCE = 60


async def head_of(reader):
    return (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")


def length_of(head):
    return int(head.lower().partition("content-length:")[2].partition("\r\n")[0] or 0)


async def serve(host, port):
    async def answer(reader, writer):
        peer = writer.get_extra_info("peername")[0].encode()
        try:
            while True:
                await head_of(reader)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: keep-alive\r\n\r\n%s" % (len(peer), peer))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(answer, host, port, backlog=1024)
    async with server:
        await server.serve_forever()


class Tunnel:
    def __init__(self, source, spec):
        self.source, self.spec = source, spec
        self.status, self.again, self.seen = 0, 0, []

    async def ask(self):
        """One CONNECT on the connection that there is; the status, or 0 where nothing is answered any more."""
        to, device = self.spec["to"], self.spec["device"]
        try:
            self.writer.write(
                f"CONNECT {to} HTTP/1.1\r\nHost: {to}\r\nUser-Agent: sase/1\r\nProxy-Connection: keep-alive\r\nX-Forwarded-For: {device}\r\n\r\n".encode()
            )
            head = await head_of(self.reader)
            if head.split()[1] != "200":
                await self.reader.readexactly(length_of(head))
            return int(head.split()[1])
        except (asyncio.IncompleteReadError, ConnectionError):
            return 0

    async def open(self):
        self.reader, self.writer = await asyncio.open_connection(*self.spec["proxy"], local_addr=(self.source, 0))
        self.status = await self.ask()
        if self.status != 200:
            # Whoever was refused does not get in by asking once more.
            self.again = await self.ask()

    async def use(self):
        for at in range(self.spec["requests"] if self.status == 200 else 0):
            request = f"GET /{at} HTTP/1.1\r\nHost: {self.spec['to']}\r\nX-Forwarded-For: {self.spec['device']}\r\n\r\n"
            self.writer.write(request.encode())
            length = length_of(await head_of(self.reader))
            self.seen.append((await self.reader.readexactly(length)).decode())
            # The others have their turn: requests of all tunnels are under way at once.
            await asyncio.sleep(0)


async def forward(spec):
    tunnels = [Tunnel(source, spec) for source in spec["sources"] for _ in range(spec["tunnels"])]
    # All of them stand before the first is used.
    await asyncio.gather(*(tunnel.open() for tunnel in tunnels))
    await asyncio.gather(*(tunnel.use() for tunnel in tunnels))
    for tunnel in tunnels:
        tunnel.writer.close()
    print(json.dumps([{"source": t.source, "status": t.status, "again": t.again, "seen": t.seen} for t in tunnels]))


if sys.argv[1] == "serve":
    asyncio.run(serve(sys.argv[2], int(sys.argv[3])))
else:
    asyncio.run(asyncio.wait_for(forward(json.loads(sys.argv[2])), PATIENCE))
