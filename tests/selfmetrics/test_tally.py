"""The tally: nothing accepted is ever unaccounted for."""

from __future__ import annotations

import signal
import threading
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from otelweir.selfmetrics import Count, Tally
from otelweir.signals import LANES, Lane, Loss

if TYPE_CHECKING:
    from types import FrameType

lanes = st.sampled_from(LANES)
numbers = st.integers(0, 1000)


@given(
    st.lists(st.tuples(lanes, st.sampled_from([*Loss, None]), numbers)),
    st.fixed_dictionaries(dict.fromkeys(LANES, numbers)),
)
def test_every_accepted_record_is_delivered_lost_or_waits(
    ends: list[tuple[Lane, Loss | None, int]], left: dict[Lane, int]
) -> None:
    accepted = Counter[Lane](left)
    tally = Tally(accepted.__getitem__)
    for lane, why, records in ends:
        accepted[lane] += records
        if why is None:
            tally.delivered(lane, records)
        else:
            tally.lost(lane, why, records)
    for lane in LANES:
        count = tally.of(lane)
        assert count.accepted == accepted[lane]
        assert count.waiting == left[lane]
        assert count.delivered == sum(records for at, why, records in ends if (at, why) == (lane, None))
        for why in Loss:
            assert count.lost.get(why, 0) == sum(n for at, reason, n in ends if (at, reason) == (lane, why))


def test_threads_count_without_losing_any() -> None:
    tally = Tally({"logs": 40_000}.__getitem__)

    def count() -> None:
        for _ in range(10_000):
            tally.delivered("logs", 1)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert tally.of("logs") == Count(delivered=40_000, lost={}, waiting=0)


def test_what_is_seen_while_others_count_adds_up() -> None:
    """Never more delivered or lost than was accepted, and what waits is never off by what was counted meanwhile."""
    accepted = Counter[Lane]()
    tally = Tally(accepted.__getitem__)
    ended = threading.Event()

    def work() -> None:
        for number in range(20_000):
            accepted["logs"] += 2
            tally.delivered("logs", 1)
            tally.lost("logs", Loss.REJECTED, 1)
            if number % 100 == 0:
                ended.wait(0.0001)
        ended.set()

    thread = threading.Thread(target=work)
    thread.start()
    while not ended.is_set():
        before = accepted["logs"]
        count = tally.of("logs")
        assert before <= count.accepted <= accepted["logs"]
        assert count.waiting >= 0
    thread.join()
    assert tally.of("logs") == Count(20_000, {Loss.REJECTED: 20_000}, 0)


def test_a_signal_handler_that_counts_while_its_thread_counts_loses_nothing() -> None:
    accepted = Counter[Lane]()
    tally = Tally(accepted.__getitem__)
    handled = 0

    def handler(_number: int, _frame: FrameType | None) -> None:
        nonlocal handled
        handled += 1
        accepted["logs"] += 1
        tally.lost("logs", Loss.ENDED, 1)
        assert tally.of("logs").waiting >= 0

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    try:
        counted = 0
        while handled < 200:
            tally.delivered("traces", 1)
            tally.lost("logs", Loss.ENDED, 0)
            counted += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert tally.of("logs") == Count(lost={Loss.ENDED: handled})
    assert tally.of("traces").delivered == counted


def test_what_is_counted_as_a_listener_answers_does_not_hang() -> None:
    """Whoever says what was accepted may hold a lock of its own, which a thread that counts holds, too."""
    lock = threading.Lock()
    inside = threading.Event()

    def accepted(_lane: Lane) -> int:
        inside.set()
        with lock:
            return 1

    tally = Tally(accepted)
    with lock:
        looking = threading.Thread(target=tally.of, args=("logs",))
        looking.start()
        assert inside.wait(10)
        tally.delivered("logs", 1)
    looking.join(10)
    assert not looking.is_alive()
    assert tally.of("logs") == Count(delivered=1)


def test_a_child_counts_its_own(in_a_child: Callable[[Callable[[], bool]], bool]) -> None:
    """Also when another thread of the parent was counting as it forked."""
    accepted = Counter[Lane](logs=3)
    tally = Tally(accepted.__getitem__)
    tally.delivered("logs", 3)
    locked, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        with tally._lock:
            locked.set()
            go_on.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    assert locked.wait(10)

    def counts_its_own() -> bool:
        accepted.clear()
        tally.after_fork()
        accepted["logs"] += 2
        tally.lost("logs", Loss.CORRUPT, 1)
        return tally.of("logs") == Count(lost={Loss.CORRUPT: 1}, waiting=1)

    assert in_a_child(counts_its_own)
    go_on.set()
    thread.join()
    assert tally.of("logs") == Count(delivered=3)


def test_it_introduces_itself() -> None:
    tally = Tally(Counter[Lane](logs=3).__getitem__)
    tally.delivered("logs", 1)
    tally.lost("logs", Loss.SPOOL_FULL, 1)
    assert repr(tally) == (
        "<Tally traces 0 delivered 0 lost 0 waiting, logs 1 delivered 1 lost 1 waiting, "
        "metrics 0 delivered 0 lost 0 waiting>"
    )
