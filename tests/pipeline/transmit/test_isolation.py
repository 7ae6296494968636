"""Bad records are found among good ones, and a server that takes nothing is not asked much."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from otelweir.pipeline.transmit.isolation import MOST_REQUESTS, PATIENCE, STRIKES, WARY, Search, Suspects


def run(size: int, bad: set[int], patience: int = PATIENCE) -> tuple[int, set[int], set[int], Search]:
    """Requests, what was delivered, what was refused alone, and the search."""
    search = Search(range(size), patience)
    requests, delivered, refused = 0, set(), set()
    while (part := search.next()) is not None:
        requests += 1
        if bad.isdisjoint(part):
            delivered |= {*part}
            search.delivered()
        else:
            if len(part) == 1:
                refused |= {*part}
            search.refused("bad")
    return requests, delivered, refused, search


class TestSearch:
    @given(st.integers(2, 8192), st.data())
    def test_one_bad_record_is_found_and_costs_nobody_else(self, size: int, data: st.DataObject) -> None:
        bad = data.draw(st.integers(0, size - 1))
        requests, delivered, refused, search = run(size, {bad})
        assert refused == {bad}
        assert delivered == {*range(size)} - {bad}
        assert requests <= 2 * math.ceil(math.log2(size)) + 1
        assert search.left() == []

    @given(st.integers(1, 8192), st.sampled_from([WARY, PATIENCE]))
    def test_a_server_that_refuses_all_gets_few_requests(self, size: int, patience: int) -> None:
        requests, delivered, refused, search = run(size, {*range(size)}, patience)
        assert requests == min(patience, 2 * size - 1)
        assert not delivered
        settled = {number for part, _ in search.settle() for number in part}
        assert settled | refused == {*range(size)}
        assert search.left() == []

    @given(st.integers(1, 2000), st.data())
    def test_no_record_gets_lost_and_no_good_one_refused_alone(self, size: int, data: st.DataObject) -> None:
        bad = data.draw(st.sets(st.integers(0, size - 1)))
        requests, delivered, refused, search = run(size, bad)
        left = {number for part in search.left() for number in part}
        assert delivered | refused | left == {*range(size)}
        assert len(delivered) + len(refused) + len(left) == size
        assert refused <= bad
        assert requests <= MOST_REQUESTS

    def test_what_is_too_large_goes_in_halves_at_once_and_in_order(self) -> None:
        search = Search("abcd")
        search.too_large()
        assert search.next() == "ab"
        search.delivered()
        assert search.next() == "cd"
        assert not search.fruitless

    def test_a_servers_own_fault_settles_nothing(self) -> None:
        search = Search(range(100), WARY)
        while search.next() is not None:
            search.refused(None)
        assert search.settle() == []
        assert sum(map(len, search.left())) == 100


class TestSuspects:
    def test_failures_prove_nothing_while_nothing_else_passes(self) -> None:
        suspects = Suspects()
        assert not any(suspects.failed("a", 10) for _ in range(1000))
        assert "a" in suspects
        assert suspects.bytes == 10

    def test_enough_failures_among_successes_of_others_are_proof(self) -> None:
        suspects = Suspects()
        proven = []
        for _ in range(STRIKES):
            proven.append(suspects.failed("a", 10))
            suspects.others_pass()
        assert proven == [False] * (STRIKES - 1) + [True]
        suspects.forget("a")
        assert len(suspects) == suspects.bytes == 0

    def test_a_server_that_fails_at_others_too_proves_little(self) -> None:
        suspects = Suspects()
        for _ in range(1000):
            assert not suspects.failed("a", 10)
            suspects.others_fail()
            suspects.others_pass()

    def test_they_are_not_without_number(self) -> None:
        suspects = Suspects()
        for number in range(5000):
            suspects.failed(number, 1)
        assert len(suspects) == suspects.bytes == 1024
