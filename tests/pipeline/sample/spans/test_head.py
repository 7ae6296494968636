"""The decision at the beginning: consistent, by rule, within a limit that tells the truth."""

from __future__ import annotations

import random
import threading
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelweir.pipeline.sample.spans.head import MAX_NAMES, NEVER, Head, threshold_for
from otelweir.pipeline.sample.spans.rules import SpanRule, TraceRules
from otelweir.pipeline.sample.spans.tracestate import SCALE, probability
from otelweir.testing import Clock

UNKNOWN = -1


def head(clock: Clock | None = None, rules: TraceRules | None = None, **given: float) -> Head[int]:
    return Head(rules or TraceRules(**given), lambda threshold: threshold, UNKNOWN, clock or Clock())  # type: ignore[arg-type]


class TestARate:
    @given(st.floats(0, 1))
    def test_its_threshold_keeps_that_share(self, rate: float) -> None:
        threshold = threshold_for(rate)
        assert probability(threshold) == pytest.approx(rate, rel=2e-4, abs=1e-15)

    def test_of_nothing_keeps_nothing_and_of_all_keeps_all(self) -> None:
        assert threshold_for(0.0) == NEVER and threshold_for(1.0) == 0
        assert head(rate=0.0).decide("a", "server", None, SCALE - 1) is None
        assert head(rate=1.0).decide("a", "server", None, 0) == 0

    @pytest.mark.parametrize("rate", [0.01, 0.1, 0.5])
    def test_keeps_its_share_of_random_traces(self, rate: float) -> None:
        chance = random.Random(7)
        one = head(rate=rate)
        kept = sum(one.decide("a", "server", None, chance.getrandbits(56)) is not None for _ in range(20_000))
        assert kept / 20_000 == pytest.approx(rate, abs=4 * (rate * (1 - rate) / 20_000) ** 0.5)

    def test_keeps_what_a_smaller_rate_keeps(self) -> None:
        """So services with different rates keep whole traces together."""
        chance = random.Random(8)
        small, large = head(rate=0.1), head(rate=0.3)
        for _ in range(2000):
            trace = chance.getrandbits(56)
            if small.decide("a", "server", None, trace) is not None:
                assert large.decide("a", "server", None, trace) is not None


class TestRules:
    RULES = TraceRules(
        rate=1.0,
        rules=(
            SpanRule("health", rate=0.0, span="GET /health*"),
            SpanRule("beta", rate=1.0, attributes={"user.plan": "beta*", "http.request.method": "GET"}),
            SpanRule("jobs", rate=0.5, kinds=frozenset({"consumer", "producer"})),
            SpanRule("codes", rate=0.0, span="*", attributes={"http.response.status_code": "404", "cached": "true"}),
        ),
    )

    @pytest.mark.parametrize(
        ("name", "kind", "attributes", "expected"),
        [
            ("GET /health/live", "server", {}, None),
            ("GET /cart", "server", {}, 0),
            ("GET /cart", "consumer", {}, 1 << 55),
            ("GET /cart", "consumer", {"user.plan": "beta-2", "http.request.method": "GET"}, 0),
            ("GET /cart", "consumer", {"user.plan": "beta-2"}, 1 << 55),
            ("GET /cart", "server", {"http.response.status_code": 404, "cached": True}, None),
            ("GET /cart", "server", {"http.response.status_code": 404, "cached": False}, 0),
            ("GET /cart", "server", None, 0),
        ],
    )
    def test_the_first_that_fits_decides(
        self, name: str, kind: str, attributes: Mapping[str, object] | None, expected: int | None
    ) -> None:
        one = head(rules=self.RULES)
        for _ in range(2):  # the second time from what was remembered
            assert one.decide(name, kind, attributes, SCALE - 1) == expected  # type: ignore[arg-type]

    def test_names_without_end_take_no_memory_without_end(self) -> None:
        one = head(rules=self.RULES)
        for number in range(3 * MAX_NAMES):
            one.decide(f"GET /order/{number}", "server", None, 0)
        assert len(one._names) <= MAX_NAMES


class TestALimit:
    def run(self, one: Head[int], clock: Clock, per_second: int, seconds: int, seed: int = 3) -> list[int]:
        """Decides on a steady stream; what the kept ones got."""
        chance = random.Random(seed)
        kept = []
        for _ in range(seconds * per_second):
            clock.advance(1 / per_second)
            decided = one.decide("a", "server", None, chance.getrandbits(56))
            if decided is not None:
                kept.append(decided)
        return kept

    def test_is_kept_to(self) -> None:
        clock = Clock()
        assert len(self.run(head(clock, per_second=20.0), clock, 500, 30)) <= 20 * 30 + 2 * 20

    def test_is_used(self) -> None:
        clock = Clock()
        assert len(self.run(head(clock, per_second=20.0), clock, 500, 30)) >= 0.75 * 20 * 30

    def test_lets_everything_pass_while_there_is_room(self) -> None:
        clock = Clock()
        assert self.run(head(clock, per_second=20.0), clock, 10, 30) == [0] * 300

    def test_keeps_the_rate_where_there_is_room(self) -> None:
        clock = Clock()
        kept = self.run(head(clock, rate=0.5, per_second=100.0), clock, 10, 200)
        assert set(kept) == {1 << 55} and len(kept) == pytest.approx(1000, abs=120)

    def test_says_the_truth_about_its_probability(self) -> None:
        """After it has learnt the stream's pace, the counts that the thresholds say add up to what came."""
        ratios = []
        for seed in range(12):
            clock = Clock()
            one = head(clock, per_second=20.0)
            self.run(one, clock, 400, 5, seed)
            kept = self.run(one, clock, 400, 50, seed + 100)
            known = [threshold for threshold in kept if threshold != UNKNOWN]
            assert len(known) >= 0.9 * len(kept)
            ratios.append(sum(1 / probability(threshold) for threshold in known) / 20_000)
        assert sum(ratios) / len(ratios) == pytest.approx(1.0, abs=0.06)

    def test_says_nothing_while_it_refuses(self) -> None:
        """A burst that nobody could know of is cut by the bucket; which traces it cuts follows no probability."""
        clock = Clock()
        one = head(clock, per_second=10.0)
        kept = [one.decide("a", "server", None, SCALE - 1) for _ in range(100)]
        assert len([each for each in kept if each is not None]) == 20 and one.refused() == 80
        clock.advance(0.2)
        assert one.decide("a", "server", None, SCALE - 1) == UNKNOWN

    def test_holds_for_threads_together(self) -> None:
        clock = Clock()
        one = head(clock, per_second=50.0)
        kept: list[object] = []

        def work() -> None:
            kept.extend(1 for _ in range(500) if one.decide("a", "server", None, SCALE - 1) is not None)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(kept) == 100
