"""What a flush came to: true only if all of it arrived, and a sentence that says where the rest is."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from otelweir.selfmetrics import Count, Flushed, Tally
from otelweir.signals import Lane, Loss

WHERE = Path("/var/lib/shop/spool")


class TestTruth:
    @pytest.mark.parametrize(
        ("after", "expected"),
        [
            (Count(delivered=5), True),
            (Count(delivered=5, waiting=1), False),
            (Count(delivered=4, lost={Loss.REJECTED: 1}), False),
            (Count(), True),
        ],
    )
    def test_is_that_nothing_waits_and_nothing_was_lost(self, after: Count, expected: bool) -> None:
        assert bool(Flushed.between({}, {"logs": Count(delivered=1), "traces": after})) is expected

    def test_what_was_lost_before_the_flush_does_not_count(self) -> None:
        before: dict[Lane, Count] = {"logs": Count(7, {Loss.SPOOL_FULL: 3}, 10)}
        flushed = Flushed.between(before, {"logs": Count(17, {Loss.SPOOL_FULL: 3}, 0)})
        assert flushed
        assert flushed.lanes == {"logs": Count(delivered=10)}

    @pytest.mark.parametrize(
        ("after", "newer", "expected"),
        [
            (Count(delivered=17, lost={Loss.SPOOL_FULL: 3}), 0, True),
            (Count(delivered=17, lost={Loss.SPOOL_FULL: 3}, waiting=4), 4, True),
            (Count(delivered=16, lost={Loss.SPOOL_FULL: 3}, waiting=1), 0, False),
            (Count(delivered=16, lost={Loss.SPOOL_FULL: 3}, waiting=5), 4, False),
            (Count(delivered=16, lost={Loss.SPOOL_FULL: 4}, waiting=4), 4, False),
            (Count(delivered=1, waiting=2), 0, False),  # forked meanwhile
        ],
    )
    def test_is_for_what_was_there_when_sending_began(self, after: Count, newer: int, expected: bool) -> None:
        before: dict[Lane, Count] = {"logs": Count(7, {Loss.SPOOL_FULL: 3}, 10)}
        flushed = Flushed.between(before, {"logs": after}, sent=before)
        assert (bool(flushed), flushed.newer, flushed.waiting) == (expected, {"logs": newer}, after.waiting)


def test_it_says_what_became_of_each_lane_since_it_began() -> None:
    accepted = Counter[Lane](traces=4, logs=163)
    tally = Tally(accepted.__getitem__)
    tally.delivered("logs", 10)
    before = tally.now()
    accepted["logs"] += 10
    tally.delivered("logs", 120)
    tally.lost("logs", Loss.REJECTED, 2)
    tally.lost("logs", Loss.TOO_LARGE, 1)
    tally.delivered("traces", 4)
    flushed = Flushed.between(before, tally.now(), WHERE)
    assert (flushed.delivered, flushed.lost, flushed.waiting) == (124, 3, 40)
    assert str(flushed) == (
        "traces: 4 delivered; logs: 120 delivered, 3 lost (rejected 2, too large 1), 40 wait in /var/lib/shop/spool"
    )


def test_one_record_waits_in_memory() -> None:
    assert str(Flushed.between({}, {"logs": Count(waiting=1)})) == "logs: 1 waits in memory"


def test_nothing_to_do_is_said_too() -> None:
    assert str(Flushed.between({}, {"logs": Count()})) == "nothing had to be sent"


def test_a_process_that_began_anew_meanwhile_has_no_negative_counts() -> None:
    flushed = Flushed.between({"logs": Count(50, {Loss.REJECTED: 2}, 0)}, {"logs": Count(1, {}, 2)})
    assert flushed.lanes == {"logs": Count(waiting=2)}
