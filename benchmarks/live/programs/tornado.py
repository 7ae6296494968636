"""Tornado: a server and its client, errors of every kind, WebSockets, secure cookies, malformed requests."""

# needs: tornado
# mypy: ignore-errors
import asyncio
import contextlib

from tornado import httpclient, httpserver, netutil, web, websocket


class Item(web.RequestHandler):
    def get(self, number):
        if number.endswith("7"):
            raise web.HTTPError(403, "not %s", number)
        if number.endswith("8"):
            raise web.HTTPError(400, reason="odd")
        if number.endswith("9"):
            raise ValueError(number)
        self.get_signed_cookie("who", "forged|1|2")
        self.write(number)

    def post(self, number):
        self.get_argument("needed")


class Echo(websocket.WebSocketHandler):
    def on_message(self, message):
        if message == "3":
            raise ValueError(message)
        self.write_message(message)


async def raw(port, text):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(text)
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(reader.read(), 0.3)
    writer.close()


async def main() -> None:
    app = web.Application([(r"/item/(\d+)", Item), (r"/ws", Echo)], cookie_secret="x" * 32, xsrf_cookies=False)
    sockets = netutil.bind_sockets(0, "127.0.0.1")
    server = httpserver.HTTPServer(app, max_body_size=1000)
    server.add_sockets(sockets)
    port = sockets[0].getsockname()[1]
    client = httpclient.AsyncHTTPClient()
    for n in range(60):
        await client.fetch(f"http://127.0.0.1:{port}/item/{n}?q={n}", raise_error=False)
    for n in range(5):
        await client.fetch(f"http://127.0.0.1:{port}/item/{n}", method="POST", body="x", raise_error=False)
        await client.fetch(f"http://127.0.0.1:{port}/absent/{n}", raise_error=False)
    for text in (
        b"nonsense\r\n\r\n",
        b"GET /item/1 HTTP/1.1\r\nbad header\r\n\r\n",
        b"POST /item/1 HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n",
        b"POST /item/1 HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n",
        b"POST /item/1 HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data\r\nContent-Length: 3\r\n\r\nabc",
        b"GET /item/1 HTTP/1.1\r\nHost: x\r\nCookie: who=2|1:0|10:1|3:who|4:eA==|abc\r\n\r\n",
        b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    ):
        for _ in range(2):
            await raw(port, text)
    ws = await websocket.websocket_connect(f"ws://127.0.0.1:{port}/ws")
    for n in range(5):
        with contextlib.suppress(websocket.WebSocketClosedError):
            await ws.write_message(str(n))
            await ws.read_message()
    ws.close()
    await asyncio.sleep(0.1)
    server.stop()


if __name__ == "__main__":
    asyncio.run(main())
