"""The decision at the end: what is held, kept, forgotten, and for how many traces it stands."""

from __future__ import annotations

import math
import random
import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otelweir.pipeline.sample.spans.quantile import GROWTH, LEAST_COUNT, Usual
from otelweir.pipeline.sample.spans.tail import MAX_DECIDED, Chance, Facts, Release, Tail, TailRules
from otelweir.pipeline.sample.spans.tracestate import SCALE
from otelweir.testing import Clock

ALL = Chance(0, SCALE - 1)
"""Of a trace that any rate above 0 keeps."""

NONE = Chance(0, 0)
"""Of a trace that only a rate of 1 keeps."""


def facts(
    *,
    root: bool = False,
    error: bool = False,
    duration_s: float = 0.01,
    route: str = "GET /cart",
    cost: float = 0.0,
    score: float = math.inf,
    size: int = 1000,
) -> Facts:
    return Facts(root, error, duration_s, route, cost, score, size)


def end(tail: Tail[str], trace: int, span: str, chance: Chance = NONE, **said: Any) -> list[Release[str]]:
    return tail.end(trace, span, facts(**said), lambda: chance)


def one_trace(rules: TailRules, chance: Chance = NONE, **said: Any) -> Release[str]:
    """A trace with a child and a root, of which the root says something special."""
    tail: Tail[str] = Tail(rules, Clock())
    tail.begin(1, chance)
    assert end(tail, 1, "child") == []
    (release,) = end(tail, 1, "root", root=True, **said)
    assert release.spans == ["child", "root"]
    return release


class TestATraceIsKept:
    @pytest.mark.parametrize(
        ("rules", "said", "reason"),
        [
            (TailRules(), {"error": True}, "error"),
            (TailRules(slow_s=1.0), {"duration_s": 1.0}, "slow"),
            (TailRules(cost=0.5), {"cost": 0.6}, "cost"),
            (TailRules(score=0.5), {"score": 0.4}, "score"),
        ],
    )
    def test_for_cause(self, rules: TailRules, said: dict[str, Any], reason: str) -> None:
        ruling = one_trace(rules, **said).ruling
        assert (ruling.kept, ruling.reason, ruling.weight) == (True, reason, 1.0)

    @pytest.mark.parametrize("said", [{}, {"duration_s": 0.99}, {"cost": 0.5}, {"score": 0.5}])
    def test_not_without_one(self, said: dict[str, Any]) -> None:
        assert not one_trace(TailRules(slow_s=1.0, cost=0.5, score=0.5), **said).ruling.kept

    def test_by_rate(self) -> None:
        ruling = one_trace(TailRules(rate=0.25), ALL).ruling
        assert (ruling.kept, ruling.reason, ruling.threshold, ruling.weight) == (True, "rate", 3 << 54, 4.0)

    def test_for_the_cost_of_all_its_spans(self) -> None:
        tail: Tail[str] = Tail(TailRules(cost=0.5), Clock())
        tail.begin(1, NONE)
        assert end(tail, 1, "a", cost=0.3) == []
        (release,) = end(tail, 1, "b", cost=0.3)
        assert (release.ruling.reason, release.spans) == ("cost", ["a", "b"])

    def test_for_a_score_that_comes_by_another_way(self) -> None:
        tail: Tail[str] = Tail(TailRules(score=0.5), Clock())
        tail.begin(1, NONE)
        assert tail.scored(1, 0.1) == [] and tail.scored(2, 0.1) == []
        (release,) = end(tail, 1, "a")
        assert release.ruling.reason == "score"


class TestWeights:
    @pytest.mark.parametrize(
        ("head", "rate", "weight", "threshold"),
        [(0, 0.5, 2.0, 1 << 55), (1 << 55, 0.25, 4.0, 3 << 54), (3 << 54, 0.5, 4.0, 3 << 54), (None, 0.5, 2.0, None)],
    )
    def test_by_rate_the_smaller_probability_counts(
        self, head: int | None, rate: float, weight: float, threshold: int | None
    ) -> None:
        """Both look at the same randomness, so what the smaller one keeps the larger one has kept."""
        ruling = one_trace(TailRules(rate=rate), Chance(head, SCALE - 1)).ruling
        assert (ruling.weight, ruling.threshold) == (weight, threshold)

    def test_for_cause_the_heads_probability_counts(self) -> None:
        ruling = one_trace(TailRules(rate=0.01), Chance(1 << 55, SCALE - 1), error=True).ruling
        assert (ruling.weight, ruling.threshold) == (2.0, 1 << 55)

    def test_add_up_to_what_there_was(self) -> None:
        chance = random.Random(5)
        tail: Tail[str] = Tail(TailRules(rate=0.1, slow_quantile=0.95, slow_s=3.0), Clock())
        weights, errors_kept = 0.0, 0
        for trace in range(1, 20_001):
            randomness = chance.getrandbits(56)
            if randomness < 1 << 55:
                continue  # the head keeps one in two
            tail.begin(trace, Chance(1 << 55, randomness))
            (release,) = end(
                tail, trace, "s", root=True, error=trace % 50 == 0, duration_s=chance.lognormvariate(-3, 1)
            )
            weights += release.ruling.weight
            errors_kept += release.ruling.reason == "error"
        assert weights == pytest.approx(20_000, rel=0.05)
        assert errors_kept == pytest.approx(200, abs=50)

    @given(st.integers(0, 2**32), st.sampled_from([(2, 1000), (1000, 4), (20, 30)]))
    @settings(max_examples=20, deadline=None)
    def test_add_up_where_there_is_no_room(self, seed: int, bounds: tuple[int, int]) -> None:
        """What is decided early is decided by the same randomness: an error that comes too late biases nothing."""
        chance = random.Random(seed)
        tail: Tail[int] = Tail(TailRules(rate=0.25, max_traces=bounds[0], max_spans=bounds[1]), Clock())
        weights, spans = 0.0, 0
        randomness: dict[int, int] = {}
        unfinished: list[int] = []
        released: list[Release[int]] = []
        for trace in range(4000):
            if len(unfinished) > 50 or (unfinished and trace % 3 == 0):
                ended = unfinished.pop(chance.randrange(len(unfinished)))
                what = facts(root=True, error=chance.random() < 0.02)
                released += tail.end(ended, ended, what, lambda ended=ended: Chance(0, randomness[ended]))  # type: ignore[misc]
                spans += 1
            randomness[trace] = chance.getrandbits(56)
            unfinished.append(trace)
            released += tail.begin(trace, Chance(0, randomness[trace]))
            for _ in range(chance.randrange(3)):
                released += tail.end(trace, trace, facts(), lambda trace=trace: Chance(0, randomness[trace]))  # type: ignore[misc]
                spans += 1
        released += tail.decide_all()
        weights = sum(release.ruling.weight * len(release.spans) for release in released if release.ruling.kept)
        assert sum(len(release.spans) for release in released) == spans
        assert weights == pytest.approx(spans, rel=0.2)
        assert repr(tail) == "<Tail holds 0 traces, 0 spans, 0 bytes>"


class TestWhatComesInBetween:
    """Signal handlers and finalizers run in the thread that is at work in the tail."""

    def test_waits_until_that_is_done(self) -> None:
        tail: Tail[str] = Tail(TailRules(rate=1.0), Clock())
        tail.begin(2, ALL)

        def interrupted() -> Chance:
            assert end(tail, 2, "between", ALL, root=True) == []
            assert tail.scored(2, 1.0) == [] and tail.begin(3, ALL) == [] and tail.grow_old() == []
            return ALL

        found: list[Release[str]] = []

        def work() -> None:
            found.extend(tail.end(1, "late", facts(), interrupted))

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        thread.join(30)
        assert [(release.trace_id, release.spans) for release in found] == [(1, ["late"]), (2, ["between"])]
        assert repr(tail) == "<Tail holds 1 traces, 0 spans, 0 bytes>"

    def test_a_flush_lets_out_all_that_nobody_is_at(self) -> None:
        """After a signal there may be nothing more."""
        tail: Tail[str] = Tail(TailRules(rate=1.0), Clock())
        for trace in (2, 3):
            tail.begin(trace, ALL)
            end(tail, trace, f"span of {trace}", ALL)
        flushed: list[Release[str]] = []

        def interrupted() -> Chance:
            flushed.extend(tail.decide_all())
            return ALL

        found = tail.end(1, "late", facts(), interrupted)
        assert [release.spans for release in flushed] == [["span of 2"], ["span of 3"]]
        assert [release.spans for release in found] == [["late"]]
        assert repr(tail) == "<Tail holds 0 traces, 0 spans, 0 bytes>"


class TestWhatIsCertainIsNotHeld:
    def test_an_error_hands_out_what_was_held_and_lets_the_rest_pass(self) -> None:
        tail: Tail[str] = Tail(TailRules(), Clock())
        tail.begin(1, NONE)
        end(tail, 1, "a")
        (first,) = end(tail, 1, "b", error=True)
        (second,) = end(tail, 1, "root", root=True)
        assert first.spans == ["a", "b"] and not first.late
        assert second.spans == ["root"] and second.late and second.ruling == first.ruling
        assert tail.begin(1, NONE) == [] and "0 traces" in repr(tail)


class TestLateSpans:
    @pytest.mark.parametrize("chance", [ALL, NONE])
    def test_follow_the_decision(self, chance: Chance) -> None:
        tail: Tail[str] = Tail(TailRules(rate=0.5), Clock())
        tail.begin(1, chance)
        (first,) = end(tail, 1, "root", root=True)
        (late,) = end(tail, 1, "late", error=True)
        assert late.late and late.ruling == first.ruling and late.ruling.kept is (chance is ALL)

    def test_of_a_trace_that_nobody_knows_are_decided_for_themselves(self) -> None:
        tail: Tail[str] = Tail(TailRules(rate=0.5), Clock())
        assert [end(tail, 1, "a", ALL)[0].ruling.kept, end(tail, 2, "a", NONE)[0].ruling.kept] == [True, False]
        assert end(tail, 3, "a", NONE, error=True)[0].ruling.kept
        assert tail.counts() == {"late": 3}

    def test_a_second_local_root_is_held_for_itself(self) -> None:
        """As when a service is called twice in one trace: the second call may fail where the first did not."""
        tail: Tail[str] = Tail(TailRules(rate=0.5), Clock())
        for expected, failed in ((False, False), (True, True), (True, False)):
            tail.begin(1, NONE)
            (release,) = end(tail, 1, "root", root=True, error=failed)
            assert release.ruling.kept is expected

    def test_roots_that_overlap_are_one(self) -> None:
        tail: Tail[str] = Tail(TailRules(), Clock())
        tail.begin(1, NONE)
        tail.begin(1, NONE)
        assert end(tail, 1, "a", root=True) == []
        assert end(tail, 1, "b", root=True)[0].spans == ["a", "b"]

    def test_decisions_are_forgotten_in_the_end(self) -> None:
        tail: Tail[str] = Tail(TailRules(), Clock())
        for trace in range(MAX_DECIDED + 10):
            tail.begin(trace, NONE)
            end(tail, trace, "root", root=True)
        assert len(tail._decided) == MAX_DECIDED


class TestBounds:
    @given(
        st.lists(
            st.tuples(st.integers(1, 6), st.sampled_from(["begin", "end", "root"]), st.integers(0, 5000)), max_size=60
        ),
        st.integers(1, 4),
        st.integers(1, 6),
        st.integers(1, 10_000),
    )
    def test_are_kept_and_nothing_comes_out_twice(
        self, steps: list[tuple[int, str, int]], traces: int, spans: int, size: int
    ) -> None:
        tail: Tail[int] = Tail(TailRules(rate=1.0, max_traces=traces, max_spans=spans, max_bytes=size), Clock())
        out: list[int] = []
        put = 0
        for number, (trace, what, bytes_) in enumerate(steps):
            if what == "begin":
                found = tail.begin(trace, NONE)
            else:
                put += 1
                found = tail.end(trace, number, facts(root=what == "root", size=bytes_), lambda: NONE)
            for release in found:
                out += release.spans
            assert len(tail._held) <= traces and tail._spans <= spans and tail._bytes <= size
        for release in tail.decide_all():
            out += release.spans
        assert len(out) == len(set(out)) == put
        assert (len(tail._held), tail._spans, tail._bytes) == (0, 0, 0)

    def test_an_old_trace_is_decided_by_what_is_known(self) -> None:
        clock = Clock()
        tail: Tail[str] = Tail(TailRules(slow_s=5.0, max_age_s=10.0), clock)
        tail.begin(1, NONE)
        end(tail, 1, "a")
        clock.advance(11)
        (release,) = tail.begin(2, NONE)
        assert (release.trace_id, release.ruling.reason) == (1, "slow")
        assert tail.counts() == {"early": 1, "slow": 1}

    def test_a_trace_of_which_nothing_has_ended_keeps_its_chance(self) -> None:
        tail: Tail[str] = Tail(TailRules(rate=0.5, max_traces=1), Clock())
        tail.begin(1, ALL)
        tail.begin(2, NONE)
        assert end(tail, 1, "root", NONE, root=True)[0].ruling.kept
        assert tail.counts() == {}


class TestTheUsualDuration:
    @pytest.mark.parametrize("quantile", [0.5, 0.9, 0.99])
    def test_is_near_the_true_quantile(self, quantile: float) -> None:
        chance = random.Random(2)
        usual = Usual(quantile)
        durations = [chance.lognormvariate(-2, 0.7) for _ in range(1900)]
        for duration in durations:
            usual.is_slow("a", duration)
        true = sorted(durations)[int(quantile * len(durations))]
        assert true / 1.25 <= usual.limit_s("a") <= true * GROWTH * 1.25

    def test_is_not_known_at_first(self) -> None:
        usual = Usual(0.9)
        assert not any(usual.is_slow("a", 0.1) for _ in range(LEAST_COUNT))
        assert usual.is_slow("a", 0.2) and not usual.is_slow("b", 0.2)

    def test_follows_a_change(self) -> None:
        usual = Usual(0.9)
        for _ in range(3000):
            usual.is_slow("a", 0.1)
        assert usual.limit_s("a") < 0.12
        for _ in range(3000):
            usual.is_slow("a", 1.0)
        assert usual.limit_s("a") > 0.9

    def test_is_kept_for_so_many_routes(self) -> None:
        usual = Usual(0.9, max_routes=3)
        for number in range(10):
            usual.is_slow(f"r{number}", 0.1)
        assert "3 routes" in repr(usual)
