"""Everything that a request of an ASGI application logs carries its context, and nothing else does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from otelweir.pipeline.capture import context, logging_bridge
from otelweir.testing import MemoryLogs

pytest.importorskip("fastapi", reason="needs FastAPI: pip install 'otelweir[fastapi]'")
httpx = pytest.importorskip("httpx", reason="needs httpx: pip install httpx")

from fastapi import APIRouter, BackgroundTasks, FastAPI, Request, WebSocket  # noqa: E402
from fastapi.responses import StreamingResponse  # noqa: E402
from starlette.routing import Mount, Route  # noqa: E402

from otelweir.pipeline.capture.frameworks.asgi import RequestContextMiddleware  # noqa: E402

log = logging.getLogger("shop")


@pytest.fixture
def memory() -> Iterator[MemoryLogs]:
    memory = MemoryLogs()
    log.setLevel(logging.INFO)
    logging_bridge.install(memory.capture)
    yield memory
    logging_bridge.uninstall()
    log.setLevel(logging.NOTSET)


@pytest.fixture
def app() -> FastAPI:
    return FastAPI()


async def get(app: FastAPI, path: str, **options: Any) -> Any:
    wrapped = RequestContextMiddleware(app, lambda: None)
    transport = httpx.ASGITransport(wrapped, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
        return await client.get(path, **options)


def routes(memory: MemoryLogs) -> list[Any]:
    return [record.attributes.get("http.route") for record in memory.logs]


class TestTheRoute:
    async def test_is_that_of_the_endpoint(self, app: FastAPI, memory: MemoryLogs) -> None:
        @app.get("/orders/{id}")
        async def order(id: int) -> None:  # noqa: A002
            log.info("asked")

        await get(app, "/orders/7", headers={"x-request-id": "r-1"})
        attributes = memory.logs[0].attributes
        assert attributes["http.route"] == "/orders/{id}"
        assert attributes["http.request.method"] == "GET"
        assert attributes["weir.request.id"] == "r-1"

    async def test_has_the_prefixes_of_included_routers(self, app: FastAPI, memory: MemoryLogs) -> None:
        inner, outer = APIRouter(prefix="/inner"), APIRouter(prefix="/outer")

        @inner.get("/{x}")
        async def endpoint(x: str) -> None:
            log.info("asked")

        outer.include_router(inner)
        app.include_router(outer, prefix="/v1")
        await get(app, "/v1/outer/inner/a")
        assert routes(memory) == ["/v1/outer/inner/{x}"]

    async def test_has_the_path_of_mounted_applications(self, app: FastAPI, memory: MemoryLogs) -> None:
        async def endpoint(scope: Any, receive: Any, send: Any) -> None:
            log.info("asked")
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})

        class Endpoint:
            async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
                await endpoint(scope, receive, send)

        app.router.routes.append(Mount("/shops/{shop}", routes=[Route("/items/{item}", Endpoint())]))
        await get(app, "/shops/north/items/7")
        assert routes(memory) == ["/shops/{shop}/items/{item}"]

    async def test_is_unknown_before_routing_and_for_no_route(self, app: FastAPI, memory: MemoryLogs) -> None:
        @app.middleware("http")
        async def before(request: Request, call_next: Any) -> Any:
            log.info("before")
            response = await call_next(request)
            log.info("after")
            return response

        await get(app, "/nowhere")
        assert routes(memory) == [None, None]
        assert memory.logs[0].attributes["weir.request.id"] == memory.logs[1].attributes["weir.request.id"]


class TestTheContextReaches:
    async def test_threads_of_plain_functions(self, app: FastAPI, memory: MemoryLogs) -> None:
        @app.get("/plain")
        def plain() -> None:
            log.info("in a thread")

        await get(app, "/plain")
        assert routes(memory) == ["/plain"]

    async def test_streaming_background_tasks_and_own_tasks(self, app: FastAPI, memory: MemoryLogs) -> None:
        async def parts() -> AsyncIterator[str]:
            log.info("streaming")
            yield "x"

        def late() -> None:
            log.info("background")

        @app.get("/stream")
        async def stream(tasks: BackgroundTasks) -> StreamingResponse:
            tasks.add_task(late)
            await asyncio.create_task(own())
            return StreamingResponse(parts(), background=tasks)

        async def own() -> None:
            log.info("own task")

        await get(app, "/stream")
        assert sorted((record.body, record.attributes.get("http.route")) for record in memory.logs) == [
            ("background", "/stream"),
            ("own task", "/stream"),
            ("streaming", "/stream"),
        ]

    async def test_what_a_server_logs_about_an_exception(self, app: FastAPI, memory: MemoryLogs) -> None:
        """It logs when the application has ended; the exception leads back to the request."""

        @app.get("/fails")
        async def fails() -> None:
            raise ValueError("no")

        wrapped = RequestContextMiddleware(app, lambda: None)
        transport = httpx.ASGITransport(wrapped)
        async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
            try:
                await client.get("/fails")
            except ValueError:
                log.exception("in the server")
        log.info("unrelated")
        assert routes(memory) == ["/fails", None]

    def test_websockets(self, app: FastAPI, memory: MemoryLogs) -> None:
        from fastapi.testclient import TestClient

        @app.websocket("/feed/{name}")
        async def feed(websocket: WebSocket, name: str) -> None:
            await websocket.accept()
            log.info("connected")
            await websocket.close()

        app.add_middleware(RequestContextMiddleware, trace=lambda: None)
        with TestClient(app).websocket_connect("/feed/a"):
            pass
        assert routes(memory) == ["/feed/{name}"]


class TestConcurrentRequests:
    async def test_never_share_a_context(self, app: FastAPI, memory: MemoryLogs) -> None:
        @app.get("/items/{item}")
        async def show(item: str, request: Request) -> None:
            request.state.user = {"id": f"user of {item}"}
            await asyncio.sleep(0.001 * (hash(item) % 5))
            log.info("async", extra={"item": item})
            await asyncio.to_thread(log.info, "thread", extra={"item": item})

        await asyncio.gather(*(get(app, f"/items/{n}", headers={"X-Request-ID": f"r-{n}"}) for n in range(40)))
        assert len(memory.logs) == 80
        for record in memory.logs:
            found = {key: record.attributes[key] for key in ("weir.request.id", "user.id")}
            item = record.attributes["item"]
            assert found == {"weir.request.id": f"r-{item}", "user.id": f"user of {item}"}

    async def test_leave_nothing_behind(self, app: FastAPI, memory: MemoryLogs) -> None:
        @app.get("/")
        async def root() -> None:
            log.info("inside")

        await get(app, "/")
        assert context.following() is None
        assert context.current() == {}


class TestTheResponse:
    async def test_carries_the_requests_id(self, app: FastAPI) -> None:
        response = await get(app, "/nowhere", headers={"X-Request-ID": "r-1"})
        assert (response.status_code, response.headers["x-request-id"]) == (404, "r-1")

    async def test_carries_the_id_when_the_application_fails(self, app: FastAPI) -> None:
        @app.get("/fails")
        async def fails() -> None:
            raise ValueError("no")

        response = await get(app, "/fails", headers={"X-Request-ID": "r-1"})
        assert (response.status_code, response.headers["x-request-id"]) == (500, "r-1")

    async def test_keeps_an_id_that_the_application_set(self, app: FastAPI) -> None:
        @app.get("/")
        async def root() -> Any:
            from fastapi.responses import PlainTextResponse

            return PlainTextResponse("x", headers={"X-Request-ID": "its own"})

        response = await get(app, "/")
        assert response.headers.get_list("x-request-id") == ["its own"]
