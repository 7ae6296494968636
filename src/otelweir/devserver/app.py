"""The local backend as an ASGI application: OTLP over HTTP in, the store behind it.

An export request is answered when its rows are committed. What cannot be taken is answered with a google.rpc.Status
in the request's own encoding: 4xx is the sender's to mend and not to repeat, 503 is to be sent again.

Source: https://opentelemetry.io/docs/specs/otlp/#otlphttp-response
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from otelweir.devserver import otlp
from otelweir.devserver.rows import SIGNALS, Signal
from otelweir.devserver.store import Store, StoreBusy

MAX_BODY_BYTES = 20 * 2**20

logger = logging.getLogger("otelweir.devserver")

# gRPC's code for each HTTP status that is sent here.
_GRPC_CODES = {400: 3, 404: 5, 405: 12, 413: 8, 415: 3, 500: 13, 503: 14}
_RETRY_AFTER_S = 1
# How much of a body that is too large is read and thrown away, so that the sender is still there for the answer.
_DISCARDED_BYTES = 64 * 2**20


def create_app(store: Store, max_body_bytes: int = MAX_BODY_BYTES) -> Starlette:
    """The application.

    Args:
        store: Where everything goes.
        max_body_bytes: The largest body taken, as sent and as unpacked.
    """
    app = Starlette(
        routes=[
            Route(f"/v1/{signal}", _exporter(store, signal, max_body_bytes), methods=["POST"]) for signal in SIGNALS
        ],
        exception_handlers={HTTPException: _http_error},
    )
    # An address is right or wrong: a redirected POST confuses exporters.
    app.router.redirect_slashes = False
    return app


def _exporter(store: Store, signal: Signal, max_body_bytes: int) -> Callable[[Request], Awaitable[Response]]:
    async def export(request: Request) -> Response:
        encoding: otlp.Encoding = "json"
        try:
            encoding = otlp.encoding_of(request.headers.get("content-type", ""))
            body = await _read(request, max_body_bytes)
            # Large bodies take a while; the event loop goes on meanwhile.
            batch = await run_in_threadpool(
                lambda: otlp.decode(
                    signal,
                    encoding,
                    otlp.unpack(body, request.headers.get("content-encoding", ""), max_body_bytes),
                )
            )
            await asyncio.wrap_future(store.submit(batch, len(body)))
        except otlp.RequestError as error:
            headers = {"Accept-Encoding": "gzip, deflate"} if isinstance(error, otlp.UnsupportedMediaError) else {}
            return _failure(encoding, error.status, str(error), headers)
        except ClientDisconnect:
            return _failure(encoding, 400, "the sender went away")
        except StoreBusy as error:
            return _failure(encoding, 503, str(error), {"Retry-After": str(_RETRY_AFTER_S)})
        except Exception as error:
            logger.exception("A request to /v1/%s failed", signal)
            # Such as a full disk: the sender keeps the data and tries again.
            return _failure(encoding, 503, f"not kept: {error}", {"Retry-After": str(_RETRY_AFTER_S)})
        return Response(otlp.success(signal, encoding), media_type=otlp.CONTENT_TYPES[encoding])

    return export


async def _read(request: Request, max_bytes: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size <= max_bytes:
            chunks.append(chunk)
        else:
            chunks.clear()
            if size > max_bytes + _DISCARDED_BYTES:
                break
    if size > max_bytes:
        raise otlp.too_large(max_bytes, "is larger than")
    return b"".join(chunks)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    try:
        encoding = otlp.encoding_of(request.headers.get("content-type", ""))
    except otlp.UnsupportedMediaError:
        encoding = "json"
    paths = ", ".join(f"/v1/{signal}" for signal in SIGNALS)
    match error.status_code:
        case 404:
            message = f"nothing at {request.url.path}; OTLP goes to {paths}"
        case 405:
            message = f"{request.url.path} takes POST, not {request.method}"
        case _:
            message = error.detail
    return _failure(encoding, error.status_code, message, dict(error.headers or {}))


def _failure(encoding: otlp.Encoding, status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    body = otlp.failure(encoding, _GRPC_CODES.get(status, 2), message)
    return Response(body, status, headers, otlp.CONTENT_TYPES[encoding])
