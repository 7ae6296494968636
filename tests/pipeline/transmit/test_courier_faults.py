"""The courier with a real spool in memory, before servers that fail in every way: nothing is lost, nothing is stuck."""

from __future__ import annotations

import math
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otelweir.pipeline.spool import Group, Spool
from otelweir.pipeline.transmit import (
    Backoff,
    Courier,
    CourierThread,
    Delivered,
    Gate,
    Outcome,
    Rejected,
    RetryAfter,
    Route,
    Sent,
    Sizing,
    TooLarge,
    Unauthorised,
)
from otelweir.pipeline.transmit.frames import overlap
from otelweir.selfmetrics import Tally
from otelweir.signals import Lane, Loss
from otelweir.testing import Clock

GROUP = Group(b"", b"")
FAULT = RetryAfter(None, "HTTP 500", suspect=True)


def join(records: Iterable[tuple[Any, bytes]]) -> bytes:
    return b"\n".join(record for _, record in records)


class Server:
    """Answers as a function of a request's records says; notes what it took, and each request.

    A pair of True and an outcome is a lost acknowledgement: it took the request, and the sender hears the outcome.
    """

    raw_bytes = wire_bytes = 0

    def __init__(self, answer: Callable[[list[bytes]], Outcome | tuple[bool, Outcome]]) -> None:
        self.answer = answer
        self.took: list[bytes] = []
        self.requests: list[list[bytes]] = []
        self.names: list[str] = []
        self.deadlines: list[float | None] = []

    def send(self, body: bytes, lane: Lane, deadline: float | None = None, frames: str = "") -> Outcome:
        records = body.split(b"\n")
        self.requests.append(records)
        self.names.append(frames)
        self.deadlines.append(deadline)
        answer = self.answer(records)
        took, outcome = answer if isinstance(answer, tuple) else (isinstance(answer, Delivered), answer)
        if took:
            self.took += records
        return outcome


class World:
    """A courier with a spool in memory, a tally and a clock that moves when told to."""

    def __init__(
        self,
        servers: dict[Lane, Server],
        *,
        pace: float = math.inf,
        size: int = 2**20,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.clock = Clock(1_000_000.0)
        self.spool = Spool(None, lost=self.lost, clock=self.clock, segment_bytes=4096, memory_bytes=2**26)
        self.tally = Tally(self.spool.accepted)
        self.gate = Gate("server", backoff=Backoff(1.0, 60.0), clock=self.clock, chance=lambda: 1.0)
        self.seen: list[Sent] = []
        self.courier = Courier(
            self.spool,
            {lane: Route(server, self.gate, Sizing(start_bytes=size)) for lane, server in servers.items()},
            join=join,
            counts=self.tally,
            clock=clock or self.clock,
            backlog_bytes_s=pace,
            observe=self.seen.append,
        )

    def lost(self, lane: Lane, why: Loss, records: int) -> None:
        self.tally.lost(lane, why, records)

    def add(self, lane: Lane, *records: bytes) -> None:
        for record in records:
            assert self.spool.append(lane, (GROUP, record))

    def run(self, seconds: float) -> None:
        until = self.clock() + seconds
        while self.clock() < until:
            while self.courier.turn():
                pass
            self.clock.advance(1.0)

    def thread(self, **more: Any) -> CourierThread:
        return CourierThread(self.courier, 60.0, lambda: any(self.left(lane) for lane in ("traces", "logs")), **more)

    def left(self, lane: Lane) -> int:
        return self.spool.waiting(lane).records


def numbered(count: int, name: str = "record") -> list[bytes]:
    return [f"{name} {number}".encode() for number in range(count)]


class TestABadRecord:
    def test_that_is_refused_costs_only_itself(self) -> None:
        server = Server(lambda records: Rejected("HTTP 400: bad") if b"bad" in records else Delivered())
        world = World({"logs": server})
        world.add("logs", *numbered(500), b"bad", *numbered(499, "later"))
        world.run(5)
        assert Counter(server.took) == Counter(numbered(500) + numbered(499, "later"))
        assert world.tally.of("logs").lost == {Loss.REJECTED: 1}
        assert len(server.requests) <= 2 * 10 + 2

    def test_over_which_the_server_fails_costs_only_itself(self) -> None:
        server = Server(lambda records: FAULT if b"bad" in records else Delivered())
        world = World({"logs": server})
        world.add("logs", *numbered(300), b"bad", *numbered(300, "later"))
        for minute in range(60):
            world.run(60)
            world.add("logs", b"minute %d" % minute)
        world.run(60)
        assert Counter(server.took) == Counter(
            numbered(300) + numbered(300, "later") + [b"minute %d" % minute for minute in range(60)]
        )
        assert world.tally.of("logs").lost == {Loss.REJECTED: 1}
        assert world.left("logs") == 0

    def test_does_not_hold_up_the_others_for_long(self) -> None:
        server = Server(lambda records: FAULT if b"bad" in records else Delivered())
        world = World({"logs": server})
        world.add("logs", b"bad", *numbered(300))
        world.run(30)
        assert Counter(server.took) == Counter(numbered(300))
        assert world.tally.of("logs").waiting == 1

    def test_and_many_of_them_in_a_row_are_passed_over(self) -> None:
        server = Server(lambda records: FAULT if any(b"bad" in record for record in records) else Delivered())
        world = World({"logs": server})
        world.add("logs", *numbered(200, "bad"), *numbered(50))
        world.run(24 * 3600)
        assert Counter(server.took) == Counter(numbered(50))
        assert world.tally.of("logs").delivered == 50


class TestAServerThatFailsOrRefusesAltogether:
    def test_sets_nothing_aside_by_its_own_fault_and_gets_everything_later(self) -> None:
        down = True
        server = Server(lambda records: FAULT if down else Delivered())
        world = World({"logs": server, "traces": Server(lambda records: FAULT if down else Delivered())})
        world.add("logs", *numbered(1000))
        world.add("traces", *numbered(3))
        world.run(7200)
        assert world.tally.of("logs").waiting == 1000
        assert world.gate.breaker.state == "open"
        assert len(server.requests) < 200
        before = len(server.requests)
        world.run(3600)
        assert len(server.requests) - before <= 61
        down = False
        world.run(300)
        assert Counter(server.took) == Counter(numbered(1000))
        assert world.tally.of("traces").delivered == 3

    def test_of_a_lane_only_leaves_the_other_one_alone(self) -> None:
        traces, logs = Server(lambda records: FAULT), Server(lambda records: Delivered())
        world = World({"traces": traces, "logs": logs})
        world.add("traces", *numbered(10))
        for second in range(600):
            world.add("logs", b"second %d" % second)
            world.run(1)
        world.run(70)
        assert len(logs.took) == 600
        assert world.tally.of("traces").waiting == 10
        assert len(traces.requests) < 100

    def test_gets_few_requests_for_a_batch_that_it_refuses(self) -> None:
        server = Server(lambda records: Rejected("HTTP 404"))
        world = World({"logs": server})
        world.add("logs", *numbered(1000))
        world.run(5)
        assert len(server.requests) == 15
        world.add("logs", *numbered(1000))
        world.run(5)
        assert len(server.requests) == 18
        assert world.tally.of("logs").lost == {Loss.REJECTED: 2000}

    @pytest.mark.parametrize("often", [0.3, 0.5, 0.8])
    def test_that_fails_now_and_then_loses_nothing(self, often: float) -> None:
        chance = random.Random(7)
        down = True
        server = Server(lambda records: FAULT if down and chance.random() < often else Delivered())
        world = World({"logs": server})
        for number in range(200):
            world.add("logs", *numbered(5, f"batch {number}"))
            world.run(2)
        world.run(1800)
        down = False
        world.run(120)
        assert world.tally.of("logs").delivered == 1000
        assert len(server.took) == len({*server.took}) == 1000

    def test_with_a_time_to_come_back_is_not_asked_before_it(self) -> None:
        """Not even to find out what it fails over."""
        server = Server(lambda records: RetryAfter(600.0, "HTTP 500", suspect=True))
        world = World({"logs": server})
        world.add("logs", *numbered(100))
        world.run(6000)
        assert len(server.requests) <= 10


class TestThePace:
    def test_what_is_new_does_not_wait_for_what_is_old(self) -> None:
        server = Server(lambda records: Delivered())
        world = World({"logs": server}, pace=2000, size=1000)
        world.add("logs", *(b"old %06d " % number + b"x" * 90 for number in range(400)))
        world.clock.advance(60)
        for second in range(10):
            world.add("logs", b"new %d" % second)
            world.run(1)
            assert any(b"new %d" % second in records for records in server.requests)
        old = sum(len(record) for record in server.took if record.startswith(b"old"))
        assert 2000 <= old <= 10 * 2000 + 2 * 2000

    def test_what_is_old_comes_to_its_end_on_every_lane(self) -> None:
        servers: dict[Lane, Server] = {"traces": Server(lambda _: Delivered()), "logs": Server(lambda _: Delivered())}
        world = World(servers, pace=5000, size=1000)
        for lane in servers:
            world.add(lane, *(b"old %06d " % number + b"x" * 90 for number in range(200)))
        world.clock.advance(60)
        world.run(30)
        assert [len(server.took) for server in servers.values()] == [200, 200]

    def test_the_thread_comes_back_for_what_it_did_not_allow(self) -> None:
        """Well before its next turn."""
        server = Server(lambda records: Delivered())
        world = World({"logs": server}, pace=30_000, size=1000, clock=time.monotonic)
        world.add("logs", *(b"old %06d " % number + b"x" * 90 for number in range(400)))
        world.clock.advance(60)
        world.add("logs", b"so that no file of old ones is in use")
        thread = world.thread()
        until = time.monotonic() + 30
        while world.left("logs") and time.monotonic() < until:
            time.sleep(0.05)
        assert len(server.took) == 401
        thread.stop(10)

    def test_a_flush_knows_none(self) -> None:
        server = Server(lambda records: Delivered())
        world = World({"logs": server}, pace=10, size=1000)
        world.add("logs", *(b"old %06d " % number + b"x" * 90 for number in range(400)))
        world.clock.advance(60)
        thread = world.thread()
        assert thread.flush(30)
        assert len(server.took) == 400
        thread.stop(10)


class TestAFlush:
    def test_the_last_one_asks_once_more_in_spite_of_the_breaker(self) -> None:
        down = True
        server = Server(lambda records: RetryAfter(None, "refused") if down else Delivered())
        world = World({"logs": server})
        world.add("logs", *numbered(10))
        world.run(300)
        assert world.gate.breaker.state == "open"
        down = False
        thread = world.thread()
        assert not thread.flush(1)
        assert thread.flush(30, last=True)
        assert len(server.took) == 10
        assert server.deadlines[-1] is not None
        thread.stop(10)

    def test_and_only_once(self) -> None:
        server = Server(lambda records: RetryAfter(None, "refused"))
        world = World({"logs": server, "traces": server})
        world.add("logs", *numbered(10))
        world.add("traces", *numbered(10))
        world.run(300)
        asked = len(server.requests)
        thread = world.thread()
        assert not thread.flush(0.5, last=True)
        assert len(server.requests) == asked + 1
        thread.stop(10)

    def test_but_never_before_the_time_that_the_server_named(self) -> None:
        server = Server(lambda records: RetryAfter(3600.0, "HTTP 429"))
        world = World({"logs": server})
        world.add("logs", *numbered(10))
        world.run(60)
        thread = world.thread()
        assert not thread.flush(300, last=True)
        assert len(server.requests) == 1
        thread.stop(10)

    def test_takes_apart_at_once_what_a_server_fails_over(self) -> None:
        server = Server(lambda records: FAULT if b"bad" in records else Delivered())
        world = World({"logs": server})
        world.add("logs", *numbered(100), b"bad", *numbered(100, "later"))
        thread = world.thread()
        assert not thread.flush(1, last=True)
        assert len(server.took) == 200
        assert world.left("logs") == 1
        thread.stop(10)

    def test_ends_with_what_waited_when_it_began(self) -> None:
        """An application that goes on logging does not keep it."""
        world: World

        def answer(records: list[bytes]) -> Outcome:
            world.add("logs", b"one more")
            return Delivered()

        server = Server(answer)
        world = World({"logs": server})
        world.add("logs", *numbered(10))
        thread = world.thread()
        assert thread.flush(60)
        assert {*numbered(10)} <= {*server.took}
        thread.stop(10)

    def test_leaves_a_request_that_hangs_when_its_time_is_over(self) -> None:
        over = threading.Event()

        def hang(records: list[bytes]) -> Outcome:
            over.wait(60)
            return Delivered()

        world = World({"logs": Server(hang)})
        world.add("logs", *numbered(10))
        thread = world.thread()
        assert not thread.flush(0.3, last=True)
        assert world.left("logs") == 10
        over.set()
        thread.stop(10)

    def test_what_has_no_way_does_not_keep_it_and_is_told(self) -> None:
        world = World({"logs": Server(lambda records: Delivered())})
        world.add("traces", b"span")
        world.add("logs", b"log")
        thread = world.thread()
        assert not thread.flush(60)
        assert world.left("logs") == 0
        world.courier.add("traces", Route(Server(lambda records: Delivered()), world.gate))
        assert thread.flush(60)
        thread.stop(10)


class TestTheThread:
    def test_it_has_a_turn_when_it_is_woken_and_does_its_chores(self) -> None:
        server = Server(lambda records: Delivered())
        world = World({"logs": server})
        chores = threading.Event()
        thread = world.thread(chores=chores.set)
        assert chores.wait(20)
        world.add("logs", b"one")
        thread.wake()
        until = time.monotonic() + 20
        while world.left("logs") and time.monotonic() < until:
            thread.wake()
            time.sleep(0.01)
        assert server.took == [b"one"]
        thread.stop(10)
        assert "ended" in repr(thread)

    def test_a_batch_in_many_parts_keeps_neither_chores_nor_a_flush_waiting(self) -> None:
        """Both get between the parts."""
        begun = threading.Event()
        done: list[int] = []

        def answer(records: list[bytes]) -> Outcome:
            begun.set()
            time.sleep(0.002)
            return TooLarge("HTTP 413") if len(records) > 1 else Delivered()

        server = Server(answer)
        world = World({"logs": server})
        world.add("logs", *numbered(200))
        thread = CourierThread(
            world.courier, 0.01, lambda: world.left("logs") > 0, chores=lambda: done.append(len(server.took))
        )
        assert begun.wait(20)
        thread.flush(0.05)
        assert thread.flush(60)
        assert sorted(server.took) == sorted(numbered(200))
        assert any(0 < took < 200 for took in done)
        thread.stop(10)

    def test_chores_that_fail_stop_nothing(self, caplog: pytest.LogCaptureFixture) -> None:
        def fail() -> None:
            raise RuntimeError("chores")

        world = World({"logs": Server(lambda records: Delivered())})
        thread = world.thread(chores=fail)
        world.add("logs", b"one")
        assert thread.flush(20)
        thread.stop(10)
        assert "WEIR-DELIVER-005" in caplog.text

    def test_after_the_end_nothing_is_sent_and_a_flush_returns(self) -> None:
        server = Server(lambda records: Delivered())
        world = World({"logs": server})
        thread = world.thread()
        thread.stop(10)
        world.add("logs", b"one")
        assert not thread.flush(60)
        assert server.requests == []

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
    def test_a_child_has_one_of_its_own(self) -> None:
        """Forked while the parent's is on its way with a probe, of which the child will hear nothing."""
        on_its_way, over = threading.Event(), threading.Event()
        answers: list[Outcome] = [RetryAfter(None, "refused")] * 5
        parent = os.getpid()

        def answer(records: list[bytes]) -> Outcome:
            if answers:
                return answers.pop()
            if os.getpid() == parent:
                on_its_way.set()
                over.wait(60)
            return Delivered()

        world = World({"logs": Server(answer)})
        world.add("logs", b"parent's")
        while world.gate.breaker.state == "closed":
            world.run(1)
        world.clock.advance(60)
        thread = world.thread()
        assert on_its_way.wait(20)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                world.spool.after_fork()
                thread.after_fork()
                world.add("logs", b"child's")
                code = 0 if thread.flush(20) and world.left("logs") == 0 else 2
            finally:
                os._exit(code)
        assert os.waitpid(child, 0)[1] == 0
        over.set()
        assert thread.flush(20)
        thread.stop(10)
        assert world.tally.of("logs").delivered == 1

    def test_another_one_may_take_its_place(self) -> None:
        server = Server(lambda records: Delivered())
        world = World({"logs": server})
        world.thread().stop(10)
        thread = world.thread()
        world.add("logs", b"one")
        assert thread.flush(20)
        thread.stop(10)


class TestWhatItTells:
    def test_of_metrics_the_server_counts_data_points(self, caplog: pytest.LogCaptureFixture) -> None:
        world = World({"metrics": Server(lambda records: Delivered(1000, "too old"))})
        world.add("metrics", b"one", b"two")
        world.run(1)
        count = world.tally.of("metrics")
        assert (count.delivered, count.lost, count.waiting) == (0, {Loss.REJECTED: 2}, 0)
        assert "1000 data points (metrics): too old" in caplog.text

    def test_each_request_and_the_state_of_each_lane(self) -> None:
        outcomes: list[Outcome] = [TooLarge("HTTP 413"), Delivered(), Delivered(), RetryAfter(None, "HTTP 503")]
        server = Server(lambda records: outcomes.pop(0))
        world = World({"logs": server}, size=2000)
        world.add("logs", *numbered(10))
        world.run(1)
        assert [(sent.lane, sent.records, type(sent.outcome)) for sent in world.seen] == [
            ("logs", 10, TooLarge),
            ("logs", 5, Delivered),
            ("logs", 5, Delivered),
        ]
        assert world.courier.state()["logs"].failing == ""
        world.add("logs", b"more")
        world.courier.turn()
        state = world.courier.state()["logs"]
        assert (state.endpoint, state.breaker, state.failing) == ("server", "closed", "HTTP 503")
        assert state.limit == sum(map(len, numbered(10)))
        assert state.wait_s > 0

    def test_who_listens_and_fails_does_not_make_it_send_twice(self) -> None:
        server = Server(lambda records: Delivered())
        world = World({"logs": server})

        def fail(sent: Sent) -> None:
            raise RuntimeError("a bug")

        world.courier._observe = fail
        world.add("logs", *numbered(10))
        world.run(5)
        assert len(server.took) == 10

    def test_requests_name_their_records(self) -> None:
        answers: list[Outcome | tuple[bool, Outcome]] = [(True, RetryAfter(None, "no answer in time"))]
        server = Server(lambda records: answers.pop() if answers else Delivered())
        world = World({"logs": server})
        world.add("logs", *numbered(300))
        world.run(5)
        world.add("logs", *numbered(3, "later"))
        world.run(5)
        first, again, later = server.names
        assert first
        assert first == again
        assert not overlap(again, later)


ANSWERS = st.sampled_from(
    ["delivered", "delivered", "acknowledgement lost", "down", "wait", "fault", "too large", "rejected", "key", "bug"]
)


class TestWhateverTheServerDoes:
    @settings(max_examples=150, deadline=None)
    @given(
        st.lists(st.tuples(ANSWERS, st.integers(0, 30)), max_size=40),
        st.sampled_from([math.inf, 300.0]),
        st.integers(50, 2000),
    )
    def test_each_record_arrives_once_or_is_counted(
        self, script: list[tuple[str, int]], pace: float, size: int
    ) -> None:
        """Twice only where an acknowledgement was lost."""
        doubled: Counter[bytes] = Counter()
        refused: Counter[bytes] = Counter()
        answers = [answer for answer, _ in script]

        def answer(records: list[bytes]) -> Outcome | tuple[bool, Outcome]:
            match answers.pop(0) if answers else "delivered":
                case "acknowledgement lost":
                    doubled.update(records)
                    return True, RetryAfter(None, "no answer in time")
                case "down":
                    return RetryAfter(None, "connection refused")
                case "wait":
                    return RetryAfter(7.0, "HTTP 429")
                case "fault":
                    return FAULT
                case "too large":
                    if len(records) == 1:
                        refused.update(records)
                    return TooLarge("HTTP 413")
                case "rejected":
                    refused.update(records)
                    return Rejected("HTTP 400")
                case "key":
                    return Unauthorised("HTTP 401")
                case "bug":
                    raise RuntimeError("a bug")
            return Delivered()

        servers: dict[Lane, Server] = {"traces": Server(answer), "logs": Server(answer)}
        world = World(servers, pace=pace, size=size)
        total: Counter[bytes] = Counter()
        for number, (_, count) in enumerate(script):
            records = numbered(count, f"step {number}")
            world.add("logs" if number % 2 else "traces", *records)
            total.update(records)
            try:
                world.courier.turn()
            except RuntimeError:
                pass
            world.clock.advance(count / 3)
        for _ in range(1000):
            try:
                while world.courier.turn():
                    pass
            except RuntimeError:
                continue
            if not world.left("traces") + world.left("logs"):
                break
            world.clock.advance(10)
        took = Counter(servers["traces"].took + servers["logs"].took)
        counts = [world.tally.of(lane) for lane in servers]
        aside = sum(sum(count.lost.values()) for count in counts)
        assert sum(count.waiting for count in counts) == 0
        assert sum(count.delivered for count in counts) + aside == total.total()
        missing = total - took
        assert missing.total() <= aside <= refused.total()
        assert not missing - refused
        assert not took - total - doubled
