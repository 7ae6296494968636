"""A shop's orders, in Flask.

    pip install 'otelweir[flask,dev]'
    weir dev                                  # in another terminal: shows what arrives
    python examples/flask_service.py
    curl -H 'X-Request-ID: try-1' http://127.0.0.1:8000/orders/7

Every log record of a request carries `http.route`, `http.request.method`, `weir.request.id` and the ids of its trace.
"""

import logging
import os
import time
from collections.abc import Iterator

from flask import Flask, Response, g, request, stream_with_context

from otelweir.integrations import flask as weir

log = logging.getLogger("shop")
logging.basicConfig(level=logging.INFO)

app = Flask(__name__)
weir.init(app, service_name="shop")


@app.before_request
def authenticate() -> None:
    g.user = request.headers.get("X-User")  # a real service would check a token


@app.get("/orders/<int:order>")
def show(order: int) -> dict[str, int]:
    log.info("looking up order %d", order, extra={"shop": {"order": order}})
    time.sleep(0.01)
    if order == 13:
        raise LookupError("order 13 is lost")
    log.info("found order %d", order)
    return {"order": order}


@app.get("/export")
def export() -> Response:
    def lines() -> Iterator[str]:
        for order in range(3):
            log.info("exporting order %d", order)
            yield f"{order}\n"

    return Response(stream_with_context(lines()), mimetype="text/plain")


if __name__ == "__main__":
    app.run(port=int(os.environ.get("PORT", "8000")))
