"""The courier before a real server: what every answer does to what waits, and to the counts."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from opentelemetry.sdk._logs import LoggerProvider

from otelweir.pipeline.spool import encode_log, join
from otelweir.pipeline.transmit import (
    Backoff,
    Breaker,
    Courier,
    CourierThread,
    Delivered,
    Gate,
    HttpSender,
    Outcome,
    Rejected,
    RetryAfter,
    Route,
    Sizing,
    TooLarge,
    Unauthorised,
)
from otelweir.selfmetrics import Count, Tally
from otelweir.signals import Lane, Loss
from otelweir.testing import Answer, Backend, Clock


class Frame(NamedTuple):
    id: int
    group: Any
    record: bytes


class Waiting:
    """A store in memory, as simple as can be."""

    def __init__(self) -> None:
        self.accepted: Counter[Lane] = Counter()
        self.waits: dict[Lane, list[Frame]] = {"traces": [], "logs": [], "metrics": []}
        self.out: dict[int, Lane] = {}
        self.aside: list[tuple[int, str]] = []
        self.finished: list[int] = []

    def add(self, lane: Lane, *bodies: str) -> None:
        for body in bodies:
            number = len(self.finished) + len(self.aside) + len(self.out) + sum(map(len, self.waits.values()))
            self.waits[lane].append(Frame(number, *_encoded(body)))
        self.accepted[lane] += len(bodies)

    def take(self, lane: Lane, max_bytes: int, max_records: int, *, part: str = "all") -> Sequence[Frame]:
        taken: list[Frame] = []
        size = 0
        while self.waits[lane] and len(taken) < max_records:
            size += len(self.waits[lane][0].record)
            if taken and size > max_bytes:
                break
            frame = self.waits[lane].pop(0)
            self.out[frame.id] = lane
            taken.append(frame)
        return taken

    def waiting(self, lane: Lane) -> Any:
        return SimpleNamespace(records=len(self.waits[lane]) + sum(out == lane for out in self.out.values()))

    def done(self, frames: Sequence[Frame]) -> None:
        for frame in frames:
            del self.out[frame.id]
            self.finished.append(frame.id)

    def give_back(self, frames: Sequence[Frame]) -> None:
        for frame in frames:
            self.waits[self.out.pop(frame.id)].append(frame)
        for lane in self.waits.values():
            lane.sort()

    def set_aside(self, frames: Sequence[Frame], reason: str) -> None:
        for frame in frames:
            del self.out[frame.id]
            self.aside.append((frame.id, reason))


def _encoded(body: str) -> tuple[Any, bytes]:
    taken: list[Any] = []
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(SimpleNamespace(on_emit=taken.append))  # type: ignore[arg-type]
    provider.get_logger("test").emit(body=body)
    return encode_log(taken[0])


class World:
    """A courier with a store, a tally and a clock that stands still, before senders that answer as they are told."""

    def __init__(self, senders: dict[Lane, Any], *, sizing: int = 2**20) -> None:
        self.clock = Clock()
        self.store = Waiting()
        self.tally = Tally(self.store.accepted.__getitem__)
        self.gate = Gate("http://server", backoff=Backoff(1.0, 60.0), clock=self.clock, chance=lambda: 1.0)
        self.courier = Courier(
            self.store,
            {lane: Route(sender, self.gate, Sizing(start_bytes=sizing)) for lane, sender in senders.items()},
            join=join,
            counts=self.tally,
            clock=self.clock,
        )

    def balanced(self, lane: Lane) -> bool:
        return self.tally.of(lane).waiting == len(self.store.waits[lane]) and not self.store.out


class Answers:
    """Answers in turn; the last one for ever. Remembers how many bytes each request had."""

    raw_bytes = wire_bytes = 0

    def __init__(self, *outcomes: Outcome) -> None:
        self.outcomes = list(outcomes)
        self.sizes: list[int] = []

    def send(self, body: bytes, lane: Lane, deadline: float | None = None, frames: str = "") -> Outcome:
        self.sizes.append(len(body))
        return self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]


class Limited:
    """Takes requests up to a size, and keeps what it took."""

    raw_bytes = wire_bytes = 0

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.attempts: list[int] = []
        self.took: list[bytes] = []

    def send(self, body: bytes, lane: Lane, deadline: float | None = None, frames: str = "") -> Outcome:
        self.attempts.append(len(body))
        if len(body) > self.limit:
            return TooLarge("HTTP 413")
        self.took.append(body)
        return Delivered()


@pytest.fixture
def backend() -> Iterator[Backend]:
    with Backend() as backend:
        yield backend


class TestOverHttp:
    def sender(self, backend: Backend) -> HttpSender:
        return HttpSender(f"{backend.endpoint}/v1/logs", dict)

    def test_what_waits_arrives_once_and_in_order(self, backend: Backend) -> None:
        world = World({"logs": self.sender(backend)})
        world.store.add("logs", *(f"record {n}" for n in range(100)))
        assert world.courier.turn()
        assert not world.courier.turn()
        assert [log.body for log in backend.logs] == [f"record {n}" for n in range(100)]
        assert world.tally.of("logs") == Count(delivered=100)
        assert world.balanced("logs")

    def test_a_server_that_was_away_gets_everything_when_it_is_back(self, backend: Backend) -> None:
        backend.answers += [Answer(503)] * 2
        world = World({"logs": self.sender(backend)})
        world.store.add("logs", "one", "two")
        assert not world.courier.turn()
        assert world.tally.of("logs") == Count(waiting=2)
        assert world.balanced("logs")
        world.clock.advance(2)
        world.courier.turn()
        world.clock.advance(4)
        world.courier.turn()
        assert [log.body for log in backend.logs] == ["one", "two"]
        assert world.tally.of("logs") == Count(delivered=2)

    def test_nobody_listens(self, backend: Backend) -> None:
        world = World({"logs": self.sender(backend)})
        backend.stop()
        world.store.add("logs", "one")
        assert not world.courier.turn()
        assert world.tally.of("logs") == Count(waiting=1)
        assert world.balanced("logs")


class TestAnEndpointThatWantsToBeLeftAlone:
    def test_is_asked_by_no_lane_before_its_time(self) -> None:
        logs, traces = Answers(RetryAfter(3600.0, "HTTP 429"), Delivered()), Answers(Delivered())
        world = World({"logs": logs, "traces": traces})
        world.store.add("logs", "one")
        world.courier.turn()
        world.store.add("traces", "two")
        world.clock.advance(3599)
        assert not world.courier.turn()
        assert (len(logs.sizes), len(traces.sizes)) == (1, 0)
        world.clock.advance(10)
        assert world.courier.turn()
        assert (len(logs.sizes), len(traces.sizes)) == (2, 1)
        assert world.gate.breaker.state == "closed"

    def test_is_probed_once_in_a_while_after_five_failures(self) -> None:
        down = Answers(RetryAfter(None, "connection refused"))
        world = World({"logs": down})
        world.store.add("logs", *"abcdef")
        for _ in range(600):
            world.courier.turn()
            world.clock.advance(1)
        assert world.gate.breaker.state == "open"
        assert len(down.sizes) <= 5 + 600 // 5
        before = len(down.sizes)
        for _ in range(600):
            world.courier.turn()
            world.clock.advance(1)
        assert len(down.sizes) - before <= 11
        assert world.tally.of("logs") == Count(waiting=6)
        assert world.balanced("logs")

    def test_says_a_change_of_its_state_once(self, caplog: pytest.LogCaptureFixture) -> None:
        down = Answers(RetryAfter(None, "connection refused"))
        world = World({"logs": down})
        world.store.add("logs", "a")
        with caplog.at_level("INFO", "otelweir.transmit"):
            for _ in range(60):
                world.courier.turn()
                world.clock.advance(1)
        opened = [record.getMessage() for record in caplog.records if "sending pauses" in record.getMessage()]
        assert opened
        assert all("connection refused" in line for line in opened)
        assert len(opened) < len(down.sizes)
        assert len([record for record in caplog.records if record.levelname == "WARNING"]) == 1


class TestARequestThatIsTooLarge:
    def test_is_halved_until_it_passes_and_the_size_is_remembered(self) -> None:
        server = Limited(2_000)
        world = World({"logs": server})
        world.store.add("logs", *(f"record {n:03} " + "x" * 100 for n in range(200)))
        while world.courier.turn():
            pass
        assert world.tally.of("logs") == Count(delivered=200)
        assert world.store.finished == list(range(200))
        attempts = len(server.attempts)
        world.store.add("logs", *(f"record {n:03} " + "x" * 100 for n in range(200)))
        while world.courier.turn():
            pass
        assert len(server.attempts) - attempts < attempts
        assert world.balanced("logs")

    def test_a_single_record_is_set_aside_and_the_rest_goes_on(self) -> None:
        world = World({"logs": Limited(2_000)})
        world.store.add("logs", *(("y" * 5_000) if n == 7 else f"record {n}" for n in range(20)))
        while world.courier.turn():
            pass
        assert world.store.aside == [(7, "HTTP 413")]
        assert world.store.finished == [n for n in range(20) if n != 7]
        assert world.tally.of("logs") == Count(delivered=19, lost={Loss.TOO_LARGE: 1})
        assert world.balanced("logs")

    def test_what_was_not_sent_yet_waits_when_the_server_goes_away_meanwhile(self) -> None:
        world = World({"logs": Answers(TooLarge("HTTP 413"), Delivered(), RetryAfter(None, "gone"))})
        world.store.add("logs", *"abcdefgh")
        assert not world.courier.turn()
        assert world.store.finished == [0, 1, 2, 3]
        assert [frame.id for frame in world.store.waits["logs"]] == [4, 5, 6, 7]
        assert world.tally.of("logs") == Count(delivered=4, waiting=4)
        assert world.balanced("logs")


def test_what_is_rejected_is_set_aside_with_the_servers_words(caplog: pytest.LogCaptureFixture) -> None:
    world = World({"logs": Answers(Rejected("HTTP 400: no such field"), Delivered())})
    world.store.add("logs", "bad")
    world.courier.turn()
    world.store.add("logs", "good")
    world.courier.turn()
    assert world.store.aside == [(0, "HTTP 400: no such field")]
    assert world.tally.of("logs") == Count(delivered=1, lost={Loss.REJECTED: 1})
    assert "WEIR-DELIVER-004" in caplog.text
    assert world.gate.breaker.state == "closed"


def test_a_partial_success_is_counted_and_never_sent_again(caplog: pytest.LogCaptureFixture) -> None:
    answers = Answers(Delivered(2, "too old"))
    world = World({"logs": answers})
    world.store.add("logs", *"abc")
    while world.courier.turn():
        pass
    assert len(answers.sizes) == 1
    assert world.tally.of("logs") == Count(delivered=1, lost={Loss.REJECTED: 2})
    assert "too old" in caplog.text


def test_a_server_that_refuses_more_than_it_was_sent_does_not_upset_the_counts() -> None:
    world = World({"logs": Answers(Delivered(10**9, "?"))})
    world.store.add("logs", *"abc")
    world.courier.turn()
    assert world.tally.of("logs") == Count(delivered=0, lost={Loss.REJECTED: 3})


def test_a_key_that_is_not_accepted_loses_nothing_and_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    world = World({"logs": Answers(*[Unauthorised("HTTP 401")] * 3, Delivered())})
    world.store.add("logs", "one")
    for _ in range(4):
        world.courier.turn()
        world.clock.advance(60)
    assert world.tally.of("logs") == Count(delivered=1)
    assert caplog.text.count("WEIR-DELIVER-002") == 1


def test_a_failure_of_the_sender_itself_gives_everything_back() -> None:
    class Broken:
        def send(self, body: bytes, lane: Lane, deadline: float | None = None, frames: str = "") -> Outcome:
            raise RuntimeError("a bug")

    world = World({"logs": Broken()})
    world.store.add("logs", *"abc")
    with pytest.raises(RuntimeError):
        world.courier.turn()
    assert world.tally.of("logs") == Count(waiting=3)
    assert world.balanced("logs")


class TestTheThread:
    def running(self, world: World, interval_s: float = 60.0) -> CourierThread:
        return CourierThread(
            world.courier, interval_s, lambda: any(world.store.waits.values()) or bool(world.store.out)
        )

    def test_a_flush_sends_what_waits_and_says_whether_all_of_it_went(self) -> None:
        world = World({"logs": Answers(Delivered())})
        thread = self.running(world)
        world.store.add("logs", *"abc")
        assert thread.flush(20)
        assert world.tally.of("logs") == Count(delivered=3)
        thread.stop(20)

    def test_a_flush_does_not_wait_for_a_server_that_will_not_be_asked(self) -> None:
        world = World({"logs": Answers(RetryAfter(3600.0, "HTTP 429"))})
        thread = self.running(world)
        world.store.add("logs", *"abc")
        waiter = threading.Thread(target=thread.flush, args=(60,), daemon=True)
        waiter.start()
        waiter.join(20)
        assert not waiter.is_alive()
        assert world.tally.of("logs") == Count(waiting=3)
        thread.stop(20)

    def test_records_leave_without_a_flush(self) -> None:
        world = World({"logs": Answers(Delivered())})
        thread = self.running(world, interval_s=0.05)
        world.store.add("logs", *"abc")
        for _ in range(400):
            if world.tally.of("logs").delivered == 3:
                break
            threading.Event().wait(0.05)
        assert world.tally.of("logs") == Count(delivered=3)
        thread.stop(20)

    def test_it_survives_a_failure_and_says_so(self, caplog: pytest.LogCaptureFixture) -> None:
        class Broken(Answers):
            def send(self, body: bytes, lane: Lane, deadline: float | None = None, frames: str = "") -> Outcome:
                if not self.sizes:
                    self.sizes.append(len(body))
                    raise RuntimeError("a bug")
                return super().send(body, lane, deadline, frames)

        world = World({"logs": Broken(Delivered())})
        thread = self.running(world)
        world.store.add("logs", "one")
        assert thread.flush(20)
        assert "WEIR-DELIVER-005" in caplog.text
        assert world.tally.of("logs") == Count(delivered=1)
        thread.stop(20)


def test_a_breaker_of_ones_own_is_used() -> None:
    changes: list[str] = []
    gate = Gate("x", breaker=Breaker(threshold=1, listener=lambda change: changes.append(change.new)))
    gate.heard(RetryAfter(None, "down"))
    assert changes == ["open"]
