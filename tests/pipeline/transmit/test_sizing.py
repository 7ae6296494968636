"""Requests become as large as the server and the line allow, and no larger."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from otelweir.pipeline.transmit import Sizing
from otelweir.pipeline.transmit.sizing import MAX_BYTES
from otelweir.testing import Clock

KIB = 1024


class TestSizing:
    def test_it_grows_while_answers_are_quick_up_to_the_maximum(self) -> None:
        sizing = Sizing(start_bytes=1000, min_bytes=100, max_bytes=5000)
        seen = []
        for _ in range(4):
            seen.append(sizing.target)
            sizing.answered(sizing.target, 0.1)
        assert seen == [1000, 2000, 4000, 5000]

    def test_a_small_request_that_is_quick_says_nothing(self) -> None:
        sizing = Sizing(start_bytes=1000, min_bytes=100)
        sizing.answered(10, 0.001)
        assert sizing.target == 1000

    def test_it_shrinks_when_answers_are_slow_and_when_they_fail_down_to_the_minimum(self) -> None:
        sizing = Sizing(start_bytes=1000, min_bytes=300)
        sizing.answered(1000, 60.0)
        assert sizing.target == 500
        sizing.failed()
        assert sizing.target == 300

    def test_between_quick_and_slow_it_stays(self) -> None:
        sizing = Sizing(start_bytes=1000, min_bytes=100)
        sizing.answered(1000, 3.0)
        assert sizing.target == 1000

    def test_what_was_too_large_is_halved_below_the_minimum_too(self) -> None:
        sizing = Sizing(start_bytes=1000, min_bytes=900)
        sizing.too_large(1000)
        assert sizing.target == 500
        sizing.too_large(500)
        assert sizing.target == 250

    def test_the_limit_is_remembered_and_can_be_handed_on(self) -> None:
        sizing = Sizing(start_bytes=64 * KIB)
        sizing.too_large(64 * KIB)
        assert sizing.limit == 64 * KIB
        assert Sizing(limit=sizing.limit).target == 32 * KIB
        assert repr(sizing) == "<Sizing 32768 bytes, 65536 is too large>"

    def test_a_server_that_raises_its_limit_is_believed(self) -> None:
        sizing = Sizing(start_bytes=1000, min_bytes=100)
        sizing.too_large(1000)
        sizing.answered(2000, 0.1)
        assert sizing.limit == 2001

    def test_what_fails_is_not_tried_again_at_once(self) -> None:
        """Else a server that gives up on large requests would fail at every other one."""
        clock = Clock()
        sizing = Sizing(start_bytes=1000, min_bytes=100, clock=clock)
        failed = 0
        for _ in range(50):
            if sizing.target > 3000:
                failed += 1
                sizing.failed()
            else:
                sizing.answered(sizing.target, 0.5)
            clock.advance(1)
        assert failed == 1
        assert sizing.target == 2000
        clock.advance(60)
        sizing.answered(2000, 0.5)
        assert sizing.target == 4000

    def test_after_an_outage_it_grows_to_what_it_was(self) -> None:
        clock = Clock()
        sizing = Sizing(start_bytes=1000, min_bytes=100, clock=clock)
        for _ in range(4):
            sizing.answered(sizing.target, 0.1)
        for _ in range(10):
            sizing.failed()
        assert sizing.target == 100
        for _ in range(20):
            sizing.answered(sizing.target, 0.1)
        assert sizing.target == 8000

    def test_a_limit_is_tried_again_now_and_then(self) -> None:
        clock = Clock()
        sizing = Sizing(start_bytes=1000, min_bytes=100, limit=1000, clock=clock)
        for _ in range(10):
            assert sizing.target < 1000
            sizing.answered(sizing.target, 0.1)
        known = sizing.target
        clock.advance(600)
        sizing.answered(known, 0.1)
        assert sizing.target == 1251
        # Nothing that large waits: the attempt is still to come.
        sizing.answered(500, 0.1)
        assert sizing.target == 1251
        sizing.too_large(1251)
        assert sizing.limit == 1000
        for _ in range(10):
            assert sizing.target < 1000
            sizing.answered(sizing.target, 0.1)
        assert sizing.target == known

    def test_a_limit_that_was_lifted_is_forgotten(self) -> None:
        clock = Clock()
        sizing = Sizing(start_bytes=1000, min_bytes=100, max_bytes=10_000, limit=1000, clock=clock)
        clock.advance(600)
        for _ in range(10):
            sizing.answered(sizing.target, 0.1)
        assert sizing.limit is None
        assert sizing.target == 10_000

    def test_a_limit_is_not_tried_where_something_else_keeps_requests_small(self) -> None:
        clock = Clock()
        sizing = Sizing(start_bytes=1000, min_bytes=100, limit=100_000, clock=clock)
        clock.advance(600)
        sizing.answered(1000, 3.0)
        assert sizing.target == 1000

    @given(st.integers(1, 10**7), st.integers(1, 10**7))
    def test_any_limit_is_found_with_few_requests_for_nothing(self, limit: int, start: int) -> None:
        """Once it is known, what is sent keeps below it, and close to it."""
        sizing = Sizing(start_bytes=start)
        refused = 0
        for _ in range(200):
            if sizing.target > limit:
                refused += 1
                sizing.too_large(sizing.target)
            else:
                sizing.answered(sizing.target, 0.1)
        assert refused <= 30
        assert min(limit, MAX_BYTES) * 0.45 - 1 <= sizing.target <= limit

    @given(
        st.lists(
            st.tuples(st.sampled_from(["answered", "too_large", "failed"]), st.integers(0, 10**8), st.floats(0, 99))
        )
    )
    def test_whatever_happens_the_target_is_a_size(self, events: list[tuple[str, int, float]]) -> None:
        sizing = Sizing()
        for event, size, took_s in events:
            match event:
                case "answered":
                    sizing.answered(size, took_s)
                case "too_large":
                    sizing.too_large(size)
                case _:
                    sizing.failed()
            assert 1 <= sizing.target <= MAX_BYTES
            assert sizing.limit is None or sizing.target <= sizing.limit
