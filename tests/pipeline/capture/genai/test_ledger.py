"""Sums of local roots, calls that are told twice, and the budget."""

from __future__ import annotations

import pytest

from otelweir.pipeline.capture.genai import ledger
from otelweir.pipeline.capture.genai.ledger import Budget, Ledger, Seen
from otelweir.pipeline.capture.genai.usage import Usage
from otelweir.testing import Clock

USAGE = Usage(10, 2)


class TestSums:
    def test_belong_to_the_local_root_they_are_below(self) -> None:
        """A service that calls itself has two local roots in one trace."""
        book = Ledger()
        outer, inner = book.begin(1, 1, None), book.begin(1, 2, None)
        below_outer, below_inner = book.begin(1, 3, 1), book.begin(1, 4, 2)
        book.add(below_outer, USAGE, 1.0)
        book.add(below_inner, USAGE, 5.0)
        assert (outer.totals.amount, inner.totals.amount) == (1.0, 5.0)

    def test_reach_a_root_whose_child_has_ended_before_its_own(self) -> None:
        book = Ledger()
        root = book.begin(1, 1, None)
        book.begin(1, 2, 1)
        book.end(1, 2, root=False)
        book.add(book.begin(1, 3, 2), USAGE, 2.0)
        assert root.totals.amount == 2.0

    def test_of_roots_that_ended_are_forgotten(self) -> None:
        book = Ledger()
        for trace in range(1000):
            book.begin(trace, trace, None)
            book.end(trace, trace, root=True)
        assert repr(book) == "<Ledger 0 spans live in 0 traces>"

    def test_are_bounded_where_spans_never_end(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ledger, "_MAX_LIVE", 100)
        book = Ledger()
        for span in range(1000):
            book.begin(span, span, None)
        assert repr(book) == "<Ledger 100 spans live in 100 traces>"
        assert book.end(0, 0, root=True) is None


class TestOneCall:
    def test_is_counted_once_however_many_spans_are_around_it(self) -> None:
        book = Ledger()
        outer = book.begin(1, 1, None)
        inner = book.begin(1, 2, 1)
        assert book.known(inner, Seen("m", "", 2, 3, USAGE)) is None
        assert book.known(outer, Seen("m", "", 1, 4, USAGE)) == "below"

    def test_is_known_by_the_providers_id_at_its_time(self) -> None:
        book = Ledger()
        beside = [book.begin(trace, trace, None) for trace in range(4)]
        assert book.known(beside[0], Seen("m", "r1", 2, 3, USAGE)) is None
        assert book.known(beside[1], Seen("m", "r1", 1, 4, USAGE)) == "same"
        assert book.known(beside[2], Seen("m", "r1", 5, 6, USAGE)) is None, "a server that gives all answers one id"
        assert book.known(beside[3], Seen("m", "r2", 1, 9, USAGE)) is None

    def test_is_known_without_an_id_if_it_ran_within_one_that_has_it(self) -> None:
        """A framework's stream has none. Of two calls that are alike, each is met once."""
        book = Ledger()
        beside = [book.begin(trace, trace, None) for trace in range(6)]
        assert book.known(beside[0], Seen("m", "r1", 2, 3, USAGE)) is None
        assert book.known(beside[1], Seen("m", "r2", 2, 3, USAGE)) is None
        assert book.known(beside[2], Seen("m", "", 1, 4, USAGE)) == "same"
        assert book.known(beside[3], Seen("m", "", 1, 4, USAGE)) == "same"
        assert book.known(beside[4], Seen("m", "", 1, 4, USAGE)) is None
        assert book.known(beside[5], Seen("m", "", 1, 4, USAGE)) is None, "two without an id are two calls"


class TestTheBudget:
    def test_is_said_once_in_a_window(self) -> None:
        clock = Clock()
        budget = Budget(1.0, 60, clock)
        assert [budget.spend(0.4) for _ in range(5)] == [False, False, True, False, False]
        clock.advance(61)
        assert [budget.spend(0.4) for _ in range(3)] == [False, False, True]
