"""The breaker against a plain model, and what its listener hears."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from otelweir.pipeline.transmit import Breaker, Change


def opened(now: float = 0.0) -> tuple[Breaker, list[Change]]:
    heard: list[Change] = []
    breaker = Breaker(listener=heard.append)
    for _ in range(5):
        assert breaker.allows(now)
        breaker.failed(now, "refused")
    return breaker, heard


class TestBreaker:
    def test_it_opens_after_five_failures_in_a_row(self) -> None:
        breaker = Breaker()
        for outcome in "ffffs" + "fffff":
            assert breaker.state == "closed"
            if outcome == "s":
                breaker.succeeded()
            else:
                breaker.failed(0.0)
        assert breaker.state == "open"

    def test_while_it_is_open_only_a_probe_goes_out(self) -> None:
        breaker, _ = opened()
        assert [breaker.allows(now) for now in (0.0, 4.9, 5.0, 5.1, 6.0)] == [False, False, True, False, False]

    def test_probes_come_early_at_first_and_once_a_recovery_time_later(self) -> None:
        breaker, _ = opened()
        now, waits = 0.0, []
        for _ in range(6):
            assert breaker.next_at is not None
            waits.append(breaker.next_at - now)
            now = breaker.next_at
            assert breaker.allows(now)
            breaker.failed(now)
        assert waits == [5, 10, 20, 40, 60, 60]

    def test_a_probe_that_succeeds_closes_it_and_all_is_forgotten(self) -> None:
        breaker, _ = opened()
        assert breaker.allows(5.0)
        breaker.succeeded()
        assert (breaker.state, breaker.next_at) == ("closed", None)
        for _ in range(4):
            breaker.failed(6.0)
        assert breaker.state == "closed"

    def test_a_probe_that_is_never_heard_of_does_not_stop_it_for_good(self) -> None:
        """The thread that sent it may be gone."""
        breaker, _ = opened()
        assert breaker.allows(5.0)
        assert not breaker.allows(64.9)
        assert breaker.allows(65.0)

    def test_there_is_one_line_for_each_change(self) -> None:
        breaker, heard = opened()
        for _ in range(20):
            breaker.failed(1.0, "refused")
        assert breaker.allows(5.0)
        breaker.succeeded()
        breaker.succeeded()
        assert [(change.old, change.new) for change in heard] == [
            ("closed", "open"),
            ("open", "half-open"),
            ("half-open", "closed"),
        ]
        assert str(heard[0]) == "sending pauses after 5 failures; next try in 5 s (refused)"

    def test_it_introduces_itself(self) -> None:
        assert repr(opened()[0]) == "<Breaker open, 5 failures>"


class Model(RuleBasedStateMachine):
    """The rules again, told in another way: by what happened since the last success."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[Change] = []
        self.breaker = Breaker(listener=self.heard.append)
        self.now = 0.0
        self.failures = 0
        self.probes_failed = 0
        self.probing = False
        self.quiet_until = 0.0

    @rule(seconds=st.floats(0, 100))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def ask(self) -> None:
        broken = self.failures >= 5
        expected = not broken or self.now >= self.quiet_until
        assert self.breaker.allows(self.now) == expected
        if broken and expected:
            self.probing = True
            self.quiet_until = self.now + 60

    @rule()
    def succeed(self) -> None:
        self.breaker.succeeded()
        self.failures = self.probes_failed = 0
        self.probing = False

    @rule()
    def fail(self) -> None:
        self.breaker.failed(self.now)
        self.failures += 1
        if self.probing:
            self.probes_failed += 1
            self.probing = False
        elif self.failures != 5:
            return
        self.quiet_until = self.now + min(60.0, 5.0 * 2**self.probes_failed)

    @invariant()
    def the_state_is_what_happened(self) -> None:
        expected = "closed" if self.failures < 5 else "half-open" if self.probing else "open"
        assert self.breaker.state == expected

    @invariant()
    def the_listener_heard_a_chain_of_changes(self) -> None:
        state = "closed"
        for change in self.heard:
            assert change.old == state != change.new
            state = change.new
        assert state == self.breaker.state


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


class TestInSpiteOfIt:
    def test_a_probe_may_be_sent_before_its_time(self) -> None:
        breaker = Breaker(threshold=1)
        breaker.failed(0.0)
        assert not breaker.allows(0.0)
        assert breaker.allows(0.0, anyway=True)
        assert breaker.state == "half-open"
        breaker.succeeded()
        assert breaker.state == "closed"  # type: ignore[comparison-overlap] # it has changed

    def test_a_probe_of_which_nothing_will_be_heard_is_replaced_at_once(self) -> None:
        """In a forked child, or after a failure of our own."""
        breaker = Breaker(threshold=1)
        breaker.failed(0.0)
        assert breaker.allows(5.0)
        assert not breaker.allows(5.0)
        breaker.forget_probe()
        assert breaker.allows(5.0)

    def test_forgetting_none_opens_nothing(self) -> None:
        breaker = Breaker(threshold=1)
        breaker.failed(0.0)
        breaker.forget_probe()
        assert not breaker.allows(0.0)
