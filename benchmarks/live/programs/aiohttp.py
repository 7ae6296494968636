"""aiohttp on both sides with asyncio in debug mode; httpx and httpcore against the same server."""

# needs: aiohttp httpx
# mypy: ignore-errors
# ruff: noqa: UP031
import asyncio
import contextlib
import time

import aiohttp
import httpx
from aiohttp import web


async def item(request):
    if int(request.match_info["n"]) % 10 == 3:
        raise web.HTTPFound("/item/4")
    return web.json_response({"n": request.match_info["n"]})


async def broken(request):
    raise ValueError(request.path)


async def slow(request):
    time.sleep(0.12)
    return web.Response(text="slow")


async def socket(request):
    ws = web.WebSocketResponse()
    await ws.prepare(request)
    async for message in ws:
        await ws.send_str(message.data)
    return ws


async def forgotten():
    raise KeyError("nobody waits")


async def main() -> None:
    app = web.Application()
    app.add_routes(
        [web.get("/item/{n}", item), web.get("/broken/{n}", broken), web.get("/slow", slow), web.get("/ws", socket)]
    )
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    base = "http://127.0.0.1:%d" % runner.addresses[0][1]
    async with aiohttp.ClientSession() as session:
        for n in range(50):
            async with session.get(f"{base}/item/{n}") as response:
                await response.text()
        for n in range(10):
            async with session.get(f"{base}/broken/{n}") as response:
                await response.text()
            async with session.get(f"{base}/absent/{n}") as response:
                await response.text()
        async with session.get(f"{base}/slow") as response:
            await response.text()
        async with session.ws_connect(f"{base}/ws") as ws:
            for n in range(5):
                await ws.send_str(f"message {n}")
                await ws.receive()
    for _ in range(3):
        reader, writer = await asyncio.open_connection("127.0.0.1", runner.addresses[0][1])
        writer.write(b"not http\r\n\r\n")
        await reader.read()
        writer.close()
    async with httpx.AsyncClient(follow_redirects=True) as client:
        for n in range(30):
            await client.get(f"{base}/item/{n}")
        with contextlib.suppress(httpx.HTTPError):
            await client.get("http://127.0.0.1:1/")
    task = asyncio.ensure_future(forgotten())
    await asyncio.sleep(0.01)
    del task
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(main(), debug=True)
    with httpx.Client() as client:
        for _ in range(3):
            with contextlib.suppress(httpx.HTTPError):
                client.get("http://127.0.0.1:1/")
