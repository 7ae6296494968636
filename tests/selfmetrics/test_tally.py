"""The tally: nothing accepted is ever unaccounted for."""

from __future__ import annotations

import threading

from hypothesis import given
from hypothesis import strategies as st

from otelweir.selfmetrics import Count, Tally
from otelweir.signals import LANES, Lane, Loss

lanes = st.sampled_from(LANES)
numbers = st.integers(0, 1000)


@given(
    st.lists(st.tuples(lanes, numbers)),
    st.lists(st.tuples(lanes, numbers)),
    st.lists(st.tuples(lanes, st.sampled_from(Loss), numbers)),
)
def test_every_accepted_record_is_delivered_lost_or_waits(
    accepted: list[tuple[Lane, int]], delivered: list[tuple[Lane, int]], lost: list[tuple[Lane, Loss, int]]
) -> None:
    tally = Tally()
    for lane, records in accepted:
        tally.accepted(lane, records)
    for lane, records in delivered:
        tally.delivered(lane, records)
    for lane, why, records in lost:
        tally.lost(lane, why, records)
    for lane in LANES:
        count = tally.of(lane)
        assert count.accepted == sum(records for at, records in accepted if at == lane)
        assert count.delivered == sum(records for at, records in delivered if at == lane)
        for why in Loss:
            assert count.lost.get(why, 0) == sum(n for at, reason, n in lost if (at, reason) == (lane, why))
        assert count.waiting == count.accepted - count.delivered - sum(count.lost.values())


def test_threads_count_without_losing_any() -> None:
    tally = Tally()

    def count() -> None:
        for _ in range(10_000):
            tally.accepted("logs", 1)
            tally.delivered("logs", 1)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert tally.of("logs") == Count(delivered=40_000, lost={}, waiting=0)


def test_a_child_counts_its_own() -> None:
    tally = Tally()
    tally.accepted("traces", 3)
    tally.after_fork()
    assert tally.of("traces") == Count()


def test_it_introduces_itself() -> None:
    tally = Tally()
    tally.accepted("logs", 3)
    tally.delivered("logs", 1)
    tally.lost("logs", Loss.SPOOL_FULL, 1)
    assert repr(tally) == (
        "<Tally traces 0 delivered 0 lost 0 waiting, logs 1 delivered 1 lost 1 waiting, "
        "metrics 0 delivered 0 lost 0 waiting>"
    )
