"""Waits grow, differ, end never, and keep to what the server asks."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from otelweir.pipeline.transmit import Backoff

chances = st.floats(0, 1)


class TestBackoff:
    def test_the_longest_wait_doubles_up_to_the_cap(self) -> None:
        backoff = Backoff(base_s=1, cap_s=10)
        assert [backoff.wait_s(failures, 1.0) for failures in range(1, 7)] == [1, 2, 4, 8, 10, 10]

    def test_chance_takes_a_part_of_all_of_it(self) -> None:
        """Processes that failed together do not return together."""
        assert Backoff(base_s=8).wait_s(1, 0.0) == 0
        assert Backoff(base_s=8).wait_s(1, 0.25) == 2

    @given(st.integers(-5, 10**12), chances)
    def test_it_has_no_end_and_no_overflow(self, failures: int, chance: float) -> None:
        assert 0 <= Backoff().wait_s(failures, chance) <= 60

    @given(st.integers(1, 1000), chances, st.floats(0.001, 1e8))
    def test_what_the_server_asks_for_is_never_undercut(self, failures: int, chance: float, after_s: float) -> None:
        assert after_s <= Backoff().wait_s(failures, chance, after_s) <= after_s + 5

    def test_being_asked_for_nothing_is_not_being_asked(self) -> None:
        """A server that is busy and says `Retry-After: 0` is not to be asked again without a pause."""
        assert Backoff(base_s=4).wait_s(1, 0.5, 0.0) == 2
