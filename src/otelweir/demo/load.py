"""Customers: a bounded load of HTTP requests, the same mix each time."""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import cycle
from typing import Final, NamedTuple

CLIENTS: Final = 4
PAUSE_S: Final = 0.015
"""Between two requests of a client, so that the demo floods the logs and not the machine."""

TIMEOUT_S: Final = 10.0
_LOOK_S: Final = 0.1
_CARDS: Final = ("valid", "valid", "declined", "valid", "valid", "slow", "valid")


class Request(NamedTuple):
    method: str
    path: str
    body: Mapping[str, object] | None = None


@dataclass(slots=True)
class Load:
    """What was asked and how it was answered.

    Attributes:
        statuses: Answers by HTTP status.
        unanswered: Requests that got none.
    """

    statuses: Counter[int] = field(default_factory=Counter)
    unanswered: int = 0
    seconds: float = 0.0

    @property
    def answered(self) -> int:
        return self.statuses.total()


def customer(name: int) -> Iterator[Request]:
    """What one customer does, over and over: look around, fill a cart, pay; the card is not always good."""
    chance = random.Random(name)  # noqa: S311 - a mix, not a secret
    for visit, card in enumerate(cycle(_CARDS[name % len(_CARDS) :] + _CARDS[: name % len(_CARDS)])):
        cart = f"{name}-{visit}"
        yield Request("GET", "/health")
        if visit % 8 == name % 8:  # early, so that the shortest load meets an error
            yield Request("GET", "/products/106")  # the price that somebody forgot
        yield Request("GET", "/products")
        for _ in range(chance.randint(2, 4)):
            yield Request("GET", f"/products/{chance.choice((101, 102, 103, 103, 104, 105))}")
        if visit % 6 == 1:
            yield Request("GET", f"/products/{chance.randint(900, 999)}")  # an old link
        for _ in range(chance.randint(1, 3)):
            item = {"product": chance.choice((101, 102, 103, 104, 105)), "quantity": chance.randint(1, 9)}
            yield Request("POST", f"/carts/{cart}/items", item)
        payment = {"card": card, "customer": chance.randint(1000, 9999)}
        yield Request("POST", f"/carts/{cart}/checkout", payment)


def drive(port: int, seconds: float, look: Callable[[Load], None], clients: int = CLIENTS) -> Load:
    """Send customers to the shop for a while; returns when the last one has left.

    Args:
        port: The shop's port on this machine.
        seconds: How long.
        look: Called every moment while it goes on. What it raises ends the load and is raised here.
        clients: How many come at a time.
    """
    load = Load()
    lock = threading.Lock()
    closing = threading.Event()
    started = time.monotonic()

    def shop(name: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
        try:
            for request in customer(name):
                if closing.wait(PAUSE_S):
                    return
                status = _ask(connection, request)
                with lock:
                    if status is None:
                        load.unanswered += 1
                    else:
                        load.statuses[status] += 1
        finally:
            connection.close()

    threads = [threading.Thread(target=shop, args=(name,), daemon=True) for name in range(clients)]
    try:
        for thread in threads:
            thread.start()
        while (left_s := started + seconds - time.monotonic()) > 0:
            load.seconds = seconds - left_s
            look(load)
            closing.wait(min(_LOOK_S, left_s))
        closing.set()
        for thread in threads:
            while thread.is_alive():
                thread.join(_LOOK_S)
                look(load)
    finally:
        closing.set()
    load.seconds = time.monotonic() - started
    return load


def _ask(connection: http.client.HTTPConnection, request: Request) -> int | None:
    """The status of the answer, None where there is none."""
    body = None if request.body is None else json.dumps(request.body)
    # A server may close a connection between two requests, as it does after an exception; the second time is anew.
    for _ in range(2):
        try:
            connection.request(request.method, request.path, body, {"Content-Type": "application/json"} if body else {})
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            connection.close()
        else:
            return answer.status
    return None
