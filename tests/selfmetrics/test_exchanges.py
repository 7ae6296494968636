"""What requests were like, told by a courier before a real server."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
from opentelemetry.sdk._logs import LoggerProvider

from otelweir.pipeline.spool import Spool, encode_log, join
from otelweir.pipeline.transmit import (
    Courier,
    Delivered,
    Gate,
    HttpSender,
    Outcome,
    Rejected,
    RetryAfter,
    Route,
    TooLarge,
    Unauthorised,
)
from otelweir.selfmetrics import Exchanges, Tally
from otelweir.selfmetrics.exchanges import error_of, outcome_of, words_of
from otelweir.signals import Lane
from otelweir.testing import Answer, Backend, Clock

DELIVERED = Delivered()


@dataclass(frozen=True)
class Sent:
    lane: Lane = "logs"
    records: int = 1
    bytes: int = 100
    wire_bytes: int = 100
    took_s: float = 0.1
    outcome: Outcome = DELIVERED


@pytest.mark.parametrize(
    ("outcome", "word", "words", "error"),
    [
        (Delivered(), "delivered", "", None),
        (Delivered(2, "too old"), "delivered", "too old", "rejected"),
        (RetryAfter(3.0, "HTTP 429: slow down"), "retry_after", "HTTP 429: slow down", "429"),
        (RetryAfter(None, "no answer in time"), "retry_after", "no answer in time", "retry_after"),
        (TooLarge("HTTP 413"), "too_large", "HTTP 413", "413"),
        (
            Unauthorised("gRPC UNAUTHENTICATED: no key"),
            "unauthorised",
            "gRPC UNAUTHENTICATED: no key",
            "UNAUTHENTICATED",
        ),
        (Rejected("HTTP 400: bad"), "rejected", "HTTP 400: bad", "400"),
    ],
)
def test_every_outcome_has_its_words(outcome: Outcome, word: str, words: str, error: str | None) -> None:
    sent = Sent(outcome=outcome)
    assert (outcome_of(sent), words_of(sent), error_of(sent)) == (word, words, error)


def test_a_lane_is_summed_up() -> None:
    exchanges = Exchanges()
    exchanges(Sent(records=10, bytes=1000, wire_bytes=100, took_s=0.5))
    exchanges(Sent(records=5, bytes=500, wire_bytes=200, took_s=0.1, outcome=RetryAfter(None, "no answer in time")))
    summary = exchanges.of("logs")
    assert summary.outcomes == {"delivered": 1, "retry_after": 1}
    assert (summary.requests, summary.records, summary.last_records) == (2, 15, 5)
    assert (summary.last_s, summary.mean_s, summary.max_s) == (0.1, 0.3, 0.5)
    assert summary.compression_ratio == 5.0
    assert exchanges.of("traces").requests == 0
    assert exchanges.of("traces").mean_s == 0.0
    assert exchanges.of("traces").compression_ratio == 1.0
    assert repr(exchanges) == "<Exchanges traces 0, logs 2, metrics 0>"
    exchanges.after_fork()
    assert exchanges.of("logs").requests == 0


def test_a_courier_tells_of_each_request() -> None:
    exchanges, clock = Exchanges(), Clock()
    with Backend() as backend:
        spool = Spool(None)
        tally = Tally(spool.accepted)
        sender = HttpSender(f"{backend.endpoint}/v1/logs", dict, compression="gzip")
        routes: dict[Lane, Route] = {"logs": Route(sender, Gate("server", clock=clock))}
        courier = Courier(spool, routes, join=join, counts=tally, clock=clock, observe=exchanges)
        provider = LoggerProvider(shutdown_on_exit=False)
        keep = SimpleNamespace(on_emit=lambda record: spool.append("logs", encode_log(record)))
        provider.add_log_record_processor(keep)  # type: ignore[arg-type]
        for number in range(200):
            provider.get_logger("shop").emit(body=f"order {number}")
        backend.answers.append(Answer(503))
        courier.turn()
        clock.advance(courier.wait_s() + 1)
        while courier.turn():
            pass
        sender.close()
    summary = exchanges.of("logs")
    assert summary.outcomes == {"retry_after": 1, "delivered": 1}
    assert summary.records == 400
    assert summary.compression_ratio > 2


def test_listeners_are_told_and_cannot_disturb() -> None:
    exchanges = Exchanges()
    heard: list[object] = []

    def broken(_sent: object) -> None:
        raise RuntimeError

    exchanges.listen(broken)
    exchanges.listen(heard.append)
    exchanges(Sent())
    exchanges.forget(heard.append)
    exchanges(Sent())
    assert heard == [Sent()]
    assert exchanges.of("logs").requests == 2


def test_threads_lose_no_request() -> None:
    exchanges = Exchanges()

    def tell() -> None:
        for _ in range(500):
            exchanges(Sent())

    threads = [threading.Thread(target=tell) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert exchanges.of("logs").requests == 2000
