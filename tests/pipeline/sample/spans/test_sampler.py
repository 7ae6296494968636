"""The sampler in the real SDK: parents, the tracestate, flags, forks."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Sequence
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace._sampling_experimental import (
    composable_parent_threshold,
    composable_traceid_ratio_based,
    composite_sampler,
)
from opentelemetry.sdk.trace.sampling import Decision, ParentBased, Sampler, SamplingResult
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags, TraceState
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from otelweir.pipeline.sample.spans import SpanRule, TraceRules, WeirSampler
from otelweir.pipeline.sample.spans.otel import sampler

LOW = (0xABC << 64) | 1
"""A trace whose randomness is next to nothing."""

HIGH = (0xABC << 64) | (2**56 - 1)
"""A trace that is kept by any rate above 0."""


def below(trace_id: int, *, remote: bool, sampled: bool, state: Sequence[tuple[str, str]] = ()) -> Context:
    flags = TraceFlags(TraceFlags.SAMPLED if sampled else 0)
    parent = SpanContext(trace_id, 1, remote, flags, TraceState(state))
    return trace.set_span_in_context(NonRecordingSpan(parent), Context())


def ask(one: WeirSampler, context: Context, trace_id: int) -> SamplingResult:
    return one.should_sample(context, trace_id, "GET /cart", SpanKind.SERVER, {"a": 1}, ())


def members(result: SamplingResult) -> dict[str, str]:
    return dict(result.trace_state or {})


class TestARoot:
    def test_carries_the_threshold_that_it_was_kept_by(self) -> None:
        provider = TracerProvider(sampler=WeirSampler(TraceRules(rate=0.5)), shutdown_on_exit=False)
        contexts = [provider.get_tracer("t").start_span("a").get_span_context() for _ in range(200)]
        kept = [context for context in contexts if context.trace_flags.sampled]
        assert 50 < len(kept) < 150
        assert {tuple(context.trace_state.items()) for context in kept} == {(("ot", "th:8"),)}
        assert all(not context.trace_state for context in contexts if not context.trace_flags.sampled)
        assert all(context.trace_id & (2**56 - 1) >= 2**55 for context in kept)

    def test_keeps_the_flag_that_says_that_its_id_is_random(self) -> None:
        provider = TracerProvider(sampler=WeirSampler(), shutdown_on_exit=False)
        with provider.get_tracer("t").start_as_current_span("a") as root:
            carrier: dict[str, str] = {}
            TraceContextTextMapPropagator().inject(carrier)
        assert carrier["tracestate"] == "ot=th:0"
        flags = int(carrier["traceparent"][-2:], 16)
        assert flags == root.get_span_context().trace_flags and flags & 1

    def test_is_decided_by_the_rule_for_it(self) -> None:
        rules = TraceRules(rules=(SpanRule("none", rate=0.0, kinds=frozenset({"client"}), attributes={"a": "1"}),))
        provider = TracerProvider(sampler=WeirSampler(rules), shutdown_on_exit=False)
        tracer = provider.get_tracer("t")
        assert not tracer.start_span("a", kind=SpanKind.CLIENT, attributes={"a": 1}).is_recording()
        assert tracer.start_span("a", kind=SpanKind.CLIENT).is_recording()
        assert tracer.start_span("a", attributes={"a": 1}).is_recording()


class TestAChild:
    @pytest.mark.parametrize("remote", [True, False])
    @pytest.mark.parametrize("trace_id", [LOW, HIGH])
    def test_follows_its_parent_whatever_the_rate(self, trace_id: int, remote: bool) -> None:
        nothing, everything = WeirSampler(TraceRules(rate=0.0)), WeirSampler()
        sampled, not_sampled = (below(trace_id, remote=remote, sampled=flag) for flag in (True, False))
        assert ask(nothing, sampled, trace_id).decision is Decision.RECORD_AND_SAMPLE
        assert ask(everything, not_sampled, trace_id).decision is Decision.DROP

    def test_passes_the_tracestate_on(self) -> None:
        state = [("vendor", "x"), ("ot", "th:4;xy:1"), ("other", "y")]
        for remote in (True, False):
            result = ask(WeirSampler(), below(HIGH, remote=remote, sampled=True, state=state), HIGH)
            assert list(members(result).items()) == state

    def test_loses_a_threshold_that_cannot_be_true(self) -> None:
        """Who counts by it would count wrong; the specification says to erase it."""
        state = [("vendor", "x"), ("ot", "xy:1;th:8")]
        result = ask(WeirSampler(), below(LOW, remote=True, sampled=True, state=state), LOW)
        assert result.decision is Decision.RECORD_AND_SAMPLE
        assert members(result) == {"vendor": "x", "ot": "xy:1"}

    def test_believes_the_randomness_that_is_given(self) -> None:
        state = [("ot", "th:8;rv:ffffffffffffff")]
        assert members(ask(WeirSampler(), below(LOW, remote=True, sampled=True, state=state), LOW)) == dict(state)

    @given(
        st.dictionaries(
            st.from_regex(r"[a-z][a-z0-9]{0,8}", fullmatch=True),
            st.from_regex(r"[!-+\--<>-~]{1,40}", fullmatch=True),
            max_size=32,
        ),
        st.sampled_from(["", "th:8", "th:zz", "rv:1", "th:8;rv:00000000000000", "junk", "th:;;", "a:" + "b" * 250]),
        st.sampled_from([LOW, HIGH]),
        st.booleans(),
        st.booleans(),
        st.sampled_from(["honour", "ignore"]),
    )
    def test_never_loses_what_others_put_into_the_tracestate(
        self, others: dict[str, str], own: str, trace_id: int, remote: bool, sampled: bool, meaning: str
    ) -> None:
        others.pop("ot", None)
        state = list(others.items())
        if own and len(state) < 32:
            state.insert(0, ("ot", own))
        one = WeirSampler(TraceRules(rate=0.5, remote=meaning))  # type: ignore[arg-type]
        found = members(ask(one, below(trace_id, remote=remote, sampled=sampled, state=state), trace_id))
        ours = found.pop("ot", "")
        assert found == others
        assert len(found) + bool(ours) <= 32 and len(ours) <= 256


class TestRemoteIgnored:
    """At the edge, where anybody may set a flag."""

    RULES = TraceRules(rate=0.5, remote="ignore")

    @pytest.mark.parametrize("sampled", [True, False])
    def test_what_others_decided_means_nothing(self, sampled: bool) -> None:
        one = WeirSampler(self.RULES)
        state = [("vendor", "x"), ("ot", "th:2")]
        kept = ask(one, below(HIGH, remote=True, sampled=sampled, state=state), HIGH)
        dropped = ask(one, below(LOW, remote=True, sampled=sampled, state=state), LOW)
        assert kept.decision is Decision.RECORD_AND_SAMPLE and members(kept) == {"ot": "th:8", "vendor": "x"}
        assert dropped.decision is Decision.DROP and members(dropped) == {"vendor": "x"}

    def test_the_randomness_that_is_given_decides(self) -> None:
        one = WeirSampler(self.RULES)
        state = [("ot", "rv:ffffffffffffff")]
        result = ask(one, below(LOW, remote=True, sampled=False, state=state), LOW)
        assert members(result) == {"ot": "th:8;rv:ffffffffffffff"}

    def test_a_parent_in_the_process_is_believed(self) -> None:
        one = WeirSampler(self.RULES)
        assert ask(one, below(LOW, remote=False, sampled=True), LOW).decision is Decision.RECORD_AND_SAMPLE


class TestByName:
    def test_a_bad_argument_warns_and_falls_back(self, caplog: pytest.LogCaptureFixture) -> None:
        found = sampler("rate=often")
        assert isinstance(found, ParentBased)
        assert "OTEL_TRACES_SAMPLER_ARG='rate=often' is not pairs such as rate=0.1" in caplog.text
        assert "parentbased_always_on" in caplog.text

    def test_what_is_told_of_it_has_no_credentials(self, caplog: pytest.LogCaptureFixture) -> None:
        sampler("https://me:hush@example.com/policy.yaml")
        sampler("rate=https://me:hush@example.com")
        assert "OTEL_TRACES_SAMPLER_ARG=" in caplog.text and "hush" not in caplog.text

    @pytest.mark.parametrize("group", ["opentelemetry_traces_sampler", "opentelemetry_sampler"])
    def test_the_sdk_and_declarative_configuration_find_it(self, group: str) -> None:
        (found,) = entry_points(group=group, name="weir")
        assert found.load() is sampler

    def test_without_an_argument_it_reads_the_variable(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Declarative configuration gives none."""
        monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "rate=0.25,remote=ignore")
        assert sampler().get_description() == "WeirSampler{rate=0.25,remote=ignore}"
        assert sampler("").get_description() == "WeirSampler{rate=1}"


class TestAPolicy:
    POLICY = "traces:\n  rules:\n    - {span: 'GET *', rate: %s}\n"

    @staticmethod
    def kept(one: Sampler) -> bool:
        return one.should_sample(Context(), HIGH, "GET /cart").decision is Decision.RECORD_AND_SAMPLE

    def test_is_followed(self, tmp_path: Path) -> None:
        """As that for logs is: a change needs no restart."""
        path = tmp_path / "policy.yaml"
        path.write_text(self.POLICY % 0)
        one = sampler(str(path))
        assert not self.kept(one)
        for text, expected in ((self.POLICY % 1, True), ("traces: [", True), (self.POLICY % 0.0, False)):
            path.write_text(text)
            deadline = time.monotonic() + 30
            while self.kept(one) is not expected and time.monotonic() < deadline:
                time.sleep(0.05)
            assert self.kept(one) is expected
        path.unlink()
        assert not self.kept(one)

    def test_that_comes_later_is_found(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        path = tmp_path / "policy.yaml"
        one = WeirSampler()
        one.follow(str(path))
        assert self.kept(one) and "WEIR-POLICY-001" in caplog.text
        path.write_text(self.POLICY % 0)
        follower = one._follower
        assert follower is not None and follower.look()
        assert not self.kept(one)
        assert one.get_description() == "WeirSampler{rate=1,rules=1}"

    def test_is_followed_in_a_forked_child(self, tmp_path: Path) -> None:
        path = tmp_path / "policy.yaml"
        path.write_text(self.POLICY % 1)
        one = sampler(str(path))
        child = os.fork()
        if child == 0:
            deadline = time.monotonic() + 30
            while self.kept(one) and time.monotonic() < deadline:
                time.sleep(0.05)
            os._exit(int(self.kept(one)))
        path.write_text(self.POLICY % 0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    def test_that_is_changed_does_not_forget_what_was_refused(self) -> None:
        one = WeirSampler(TraceRules(per_second=1.0))
        results = [ask(one, Context(), HIGH) for _ in range(30)]
        refused = one.refused()
        assert refused == sum(result.decision is Decision.DROP for result in results) > 0
        one.apply(TraceRules(rate=0.5))
        assert one.refused() == refused


@pytest.mark.parametrize("power", range(6))
def test_decides_as_the_sdks_own_consistent_sampler(power: int) -> None:
    """Upstream's, still an experiment, is the specification in code."""
    rate = 0.5**power
    theirs = composite_sampler(composable_parent_threshold(composable_traceid_ratio_based(rate)))
    ours = WeirSampler(TraceRules(rate=rate))
    chance = random.Random(power)
    for _ in range(300):
        trace_id = chance.getrandbits(128)
        threshold = f"th:{chance.choice(['0', '8', 'c', 'e', 'ff8'])}"
        value = chance.choice([threshold, f"{threshold};rv:{chance.getrandbits(56):014x}", "xy:1"])
        state = [("vendor", "x"), ("ot", value)]
        for context, came in (
            (Context(), []),
            (below(trace_id, remote=True, sampled=True, state=state), state),
            (below(trace_id, remote=True, sampled=False, state=state[:1]), state[:1]),
        ):
            their = theirs.should_sample(context, trace_id, "a", trace_state=TraceState(came))
            our = ours.should_sample(context, trace_id, "a")
            if their.decision is Decision.DROP and came == state:
                # A parent that is sampled by a threshold that cannot be true: upstream believes that, and we the flag.
                assert our.decision is Decision.RECORD_AND_SAMPLE
                assert members(our) == {"vendor": "x", **({"ot": value[-17:]} if "rv:" in value else {})}
                continue
            assert our.decision is their.decision
            assert members(our) == members(their)


@given(
    st.lists(st.tuples(st.from_regex(r"[a-z]{1,4}", fullmatch=True), st.just("x")), max_size=31),
    st.sampled_from([None, "th:8", "rv:0123456789abcd;th:4", "xy:1", "th:0"]),
    st.floats(0, 1),
)
def test_a_tracestate_that_was_changed_is_one_like_any_other(
    others: list[tuple[str, str]], ours: str | None, rate: float
) -> None:
    """It is made without checking again what was checked; nobody should see a difference."""
    given_state = dict([*others, *([("ot", ours)] if ours else [])])
    context = below(HIGH, remote=True, sampled=True, state=list(given_state.items()))
    found = ask(WeirSampler(TraceRules(rate=rate, remote="ignore")), context, HIGH).trace_state
    if found is None:
        return
    plain = TraceState(list(found.items()))
    assert found == plain and found.to_header() == plain.to_header() and repr(found) == repr(plain)
    assert list(found) == list(plain) == list(found.keys()) and list(found.values()) == list(plain.values())
    assert len(found) == len(plain) and ("ot" in found) == ("ot" in plain) and found.get("ot") == plain.get("ot")
    assert found.add("new", "1") == plain.add("new", "1")
    assert found.update("ot", "th:1") == plain.update("ot", "th:1")
    for key in given_state:
        assert found.delete(key) == plain.delete(key)


def test_a_forked_child_has_limits_of_its_own() -> None:
    one = WeirSampler(TraceRules(per_second=1.0))
    chance = random.Random(1)

    def kept() -> int:
        results = [ask(one, Context(), chance.getrandbits(128)) for _ in range(100)]
        return sum(result.decision is Decision.RECORD_AND_SAMPLE for result in results)

    assert kept() == 10 and kept() == 0
    child = os.fork()
    if child == 0:
        os._exit(kept())
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 10
