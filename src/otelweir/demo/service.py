"""A small shop, the service that the demo floods: `python -m otelweir.demo.service --log-file FILE`.

It is written as services are: FastAPI, ordinary `logging` in all its habits, a log file, a few spans of OpenTelemetry's
API. It knows nothing of Weir; whatever Weir does here, the launcher and environment variables bring.

It says on its standard output where it listens, and ends on SIGTERM; with `--until-eof` also when its standard input
ends, as it does when whoever launched it is killed. Each error gets an incident id, for customers to quote, on the
record and in the log file.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import logging.config
import os
import socket
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import uvicorn
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from opentelemetry import trace
from pydantic import BaseModel

tracer = trace.get_tracer("shop")
web = logging.getLogger("shop.web")
database = logging.getLogger("shop.database")
cache_log = logging.getLogger("shop.cache")
catalog = logging.getLogger("shop.catalog")
carts_log = logging.getLogger("shop.cart")
checkout_log = logging.getLogger("shop.checkout")
payment = logging.getLogger("shop.payment")


# ── data ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Product:
    name: str
    cents: int | None
    stock: int


PRODUCTS: Final = {
    101: Product("teapot", 2450, 40),
    102: Product("kettle", 3900, 25),
    103: Product("mug", 890, 300),
    104: Product("strainer", 540, 7),
    105: Product("tea tin", 1290, 120),
    106: Product("gift card", None, 1),  # the price that somebody forgot
}
_cache: dict[int, tuple[float, Product]] = {}
_CACHE_S: Final = 0.5
_carts: dict[str, Counter[int]] = {}


async def query(statement: str, *arguments: object) -> None:
    """What stands for a database: it takes a moment, and its driver talks."""
    started = time.perf_counter()
    database.debug("executing %s with %r", statement, arguments)
    await asyncio.sleep(0.0005)
    database.debug("query returned in %.2f ms", 1000 * (time.perf_counter() - started))


async def product_of(number: int) -> Product | None:
    cached = _cache.get(number)
    if cached and time.monotonic() - cached[0] < _CACHE_S:
        cache_log.debug(f"cache hit for product:{number}")
        return cached[1]
    cache_log.debug(f"cache miss for product:{number}, loading")
    with tracer.start_as_current_span("load product"):
        await query("SELECT name, cents, stock FROM products WHERE id = ?", number)
    product = PRODUCTS.get(number)
    if product:
        _cache[number] = (time.monotonic(), product)
    return product


def audit(message: str) -> None:
    """A wrapper as every codebase has one: the message is made elsewhere."""
    logging.getLogger("shop.audit").info(message)


# ── payment ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class PaymentError(Exception):
    """The money did not come."""


class CardDeclinedError(PaymentError):
    """The bank said no."""


class ProviderTimeoutError(PaymentError):
    """The payment provider did not answer."""


async def charge(card: str, cents: int) -> str:
    """Charge a card; three attempts where the provider does not answer."""
    with tracer.start_as_current_span("charge card", kind=trace.SpanKind.CLIENT) as span:
        span.set_attribute("payment.amount_cents", cents)
        for attempt in range(1, 4):
            payment.debug("calling provider, attempt %d, amount %d cents", attempt, cents)
            with tracer.start_as_current_span(f"authorize, attempt {attempt}"):
                await asyncio.sleep(0.004)
            if card == "declined":
                raise CardDeclinedError("insufficient funds")
            if card != "slow":
                break
            payment.warning("provider timed out, attempt %d of 3, retrying in %d ms", attempt, 5 * attempt)
            await asyncio.sleep(0.005 * attempt)
        else:
            raise ProviderTimeoutError("no answer after 3 attempts")
    reference = uuid.uuid4().hex[:12]
    payment.info("charged %.2f EUR, reference %s", cents / 100, reference)
    return reference


# ── the web ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class Item(BaseModel):
    product: int
    quantity: int = 1


class Payment(BaseModel):
    card: str
    customer: int


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    web.info("shop is open with %d products", len(PRODUCTS))
    yield
    web.info("shop is closed, %d carts were left behind", len(_carts))


app = FastAPI(title="shop", lifespan=lifespan)


@app.get("/health")
async def health() -> dict[str, str]:
    web.debug("health check passed")
    return {"status": "ok"}


@app.get("/products")
async def products() -> dict[int, str]:
    web.debug("listing products, page %d", 1)
    with tracer.start_as_current_span("list products"):
        await query("SELECT id, name FROM products ORDER BY name LIMIT ?", 50)
    for number, found in PRODUCTS.items():
        catalog.debug("rendering row for product %d (%s)", number, found.name)
    catalog.info(f"served {len(PRODUCTS)} products")
    return {number: found.name for number, found in PRODUCTS.items()}


@app.get("/products/{number}", response_model=None)
async def product(number: int) -> dict[str, object] | JSONResponse:
    found = await product_of(number)
    if found is None:
        catalog.warning("product %d does not exist, somebody follows an old link", number)
        return JSONResponse({"detail": "no such product"}, 404)
    if found.stock < 10:
        catalog.warning(f"only {found.stock} of {found.name} left")
    catalog.debug("computing price of %s", found.name)
    # Fails where the price is missing: nobody catches it, so the server logs it.
    price = found.cents / 100  # type: ignore[operator]
    catalog.info("product %d viewed", number)
    return {"name": found.name, "price": price, "stock": found.stock}


@app.post("/carts/{cart}/items")
async def add(cart: str, item: Item) -> dict[str, int]:
    carts_log.debug("locking cart %s", cart)
    await query("UPDATE carts SET updated = now() WHERE id = ?", cart)
    items = _carts.setdefault(cart, Counter())
    items[item.product] += item.quantity
    carts_log.info("added %d of product %d to cart %s", item.quantity, item.product, cart)
    carts_log.debug("cart %s holds %d items" % (cart, items.total()))  # noqa: UP031 - as many services do
    return {"items": items.total()}


@app.post("/carts/{cart}/checkout")
async def checkout(cart: str, paid: Payment) -> JSONResponse:
    checkout_log.info("checkout of cart %s by customer %d", cart, paid.customer)
    items = _carts.pop(cart, Counter())
    with tracer.start_as_current_span("reserve stock"):
        for number, quantity in items.items():
            found = await product_of(number)
            checkout_log.debug("reserving %d of product %d", quantity, number)
            if found and quantity > found.stock:
                checkout_log.warning("product %d is short by %d, ordering more", number, quantity - found.stock)
    cents = sum((PRODUCTS[number].cents or 0) * quantity for number, quantity in items.items() if number in PRODUCTS)
    checkout_log.debug(f"cart {cart} comes to {cents / 100:.2f} EUR")
    try:
        reference = await charge(paid.card, cents)
    except CardDeclinedError as error:
        checkout_log.exception("payment for cart %s failed: %s", cart, error)
        return JSONResponse({"detail": "card declined"}, 402)
    except ProviderTimeoutError:
        checkout_log.critical("payment provider is down, cart %s cannot be paid", cart, exc_info=True)
        return JSONResponse({"detail": "try again later"}, 503)
    with tracer.start_as_current_span("store order"):
        await query("INSERT INTO orders (cart, customer, cents) VALUES (?, ?, ?)", cart, paid.customer, cents)
    checkout_log.info("order placed", extra={"order": {"cart": cart, "cents": cents, "items": items.total()}})
    audit(f"customer {paid.customer} paid {cents} cents, reference {reference}")
    return JSONResponse({"reference": reference})


# ── logging and launch ───────────────────────────────────────────────────────────────────────────────────────────────


class JsonLines(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": record.created,
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        if incident := getattr(record, "incident", None):
            line["incident"] = incident
        return json.dumps(line)


def number_incidents() -> None:
    """Give every record of level ERROR and above an id of its own, whoever logs it."""
    make = logging.getLogRecordFactory()

    def with_incident(*arguments: Any, **more: Any) -> logging.LogRecord:
        record = make(*arguments, **more)
        if record.levelno >= logging.ERROR:
            record.incident = uuid.uuid4().hex
        return record

    logging.setLogRecordFactory(with_incident)


def configure_logging(log_file: Path) -> None:
    number_incidents()
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {
                "json": {"()": JsonLines},
                "line": {"format": "%(asctime)s %(levelname)-8s %(name)s: %(message)s"},
            },
            "handlers": {
                "file": {"class": "logging.FileHandler", "filename": str(log_file), "formatter": "json"},
                "console": {"class": "logging.StreamHandler", "level": "WARNING", "formatter": "line"},
            },
            "root": {"level": "INFO", "handlers": ["file", "console"]},
            "loggers": {"shop": {"level": "DEBUG"}},
        }
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="A small shop.")
    parser.add_argument("--log-file", type=Path, required=True)
    parser.add_argument("--port", type=int, default=0, help="0 takes any that is free")
    parser.add_argument("--until-eof", action="store_true", help="end when the standard input does")
    options = parser.parse_args()
    configure_logging(options.log_file)
    # With the protocol named, or asyncio would leave Nagle's delay on: 40 ms an answer.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", options.port))
    listener.listen(128)
    sys.stdout.write(f"listening on port {listener.getsockname()[1]}\n")
    sys.stdout.flush()
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=3))
    if options.until_eof:
        threading.Thread(target=end_with_input, args=(server,), daemon=True).start()
    server.run(sockets=[listener])


def end_with_input(server: uvicorn.Server) -> None:
    # Not sys.stdin: its lock would be held when the interpreter ends.
    while os.read(0, 1024):
        pass
    server.should_exit = True


if __name__ == "__main__":
    main()
