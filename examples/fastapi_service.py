"""A shop's orders, in FastAPI.

    pip install 'otelweir[fastapi,dev]'
    weir dev                                  # in another terminal: shows what arrives
    uvicorn --app-dir examples fastapi_service:app
    curl -H 'X-Request-ID: try-1' http://127.0.0.1:8000/orders/7

Every log record of a request carries `http.route`, `http.request.method`, `weir.request.id` and the ids of its trace:
in coroutines, threads, streams and background tasks.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator

from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, Request
from fastapi.responses import StreamingResponse

from otelweir.integrations import fastapi as weir

log = logging.getLogger("shop")
logging.basicConfig(level=logging.INFO)


async def authenticate(request: Request) -> None:
    request.state.user = request.headers.get("X-User")  # a real service would check a token


app = FastAPI(dependencies=[Depends(authenticate)])
weir.init(app, service_name="shop")

orders = APIRouter(prefix="/orders")


@orders.get("/{order}")
async def show(order: int, tasks: BackgroundTasks) -> dict[str, int]:
    log.info("looking up order %d", order, extra={"shop": {"order": order}})
    await asyncio.sleep(0.01)
    if order == 13:
        raise LookupError("order 13 is lost")
    log.info("found order %d", order)
    tasks.add_task(log.info, "order %d was looked at", order)
    return {"order": order}


@orders.get("/{order}/invoice")
def invoice(order: int) -> dict[str, int]:
    time.sleep(0.01)
    log.info("invoice for order %d", order)  # in a thread, as FastAPI runs plain functions
    return {"order": order}


app.include_router(orders)


@app.get("/export")
async def export() -> StreamingResponse:
    async def lines() -> AsyncIterator[str]:
        for order in range(3):
            log.info("exporting order %d", order)
            yield f"{order}\n"

    return StreamingResponse(lines(), media_type="text/plain")
