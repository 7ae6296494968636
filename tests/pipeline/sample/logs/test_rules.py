"""The effective policy: which rule decides, and what none can change."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelweir.pipeline.sample.logs.rules import Overlay, Rule, Rules, Ruling, covers, matches
from otelweir.pipeline.sample.logs.settings import LogSamplingSettings
from otelweir.signals import SEVERITIES, Severity

BASE = Rules.of(LogSamplingSettings())
ID = "9f86d081884c7d65"


def with_rules(*rules: Rule) -> Rules:
    return replace(BASE, rules=rules)


def deciding(
    *rules: Rule, event: str | None = None, logger: str = "app.http", severity: Severity = "info"
) -> str | None:
    return with_rules(*rules).ruling(ID, "GET <*> took <*>", severity, logger, event).rule


class TestMatching:
    @pytest.mark.parametrize(
        ("glob", "text", "expected"),
        [
            ("GET /health*", "GET /health", True),
            ("GET /health*", "GET /health/live <*>", True),
            ("GET /health*", "POST GET /health", False),
            ("*timeout*", "a timeout of <*>", True),
            ("*", "", True),
            ("", "", True),
            ("", "x", False),
            ("a*b", "ab", True),
            ("a*a", "a", False),
            ("*ab", "aab", True),
            ("a*b*c", "a-b-b-c", True),
            ("a*b*c", "a-c-b", False),
            ("line*", "line one\nline two", True),
            ("a.c", "abc", False),
            ("[ab]?", "[ab]?", True),
        ],
    )
    def test_a_star_stands_for_anything_and_all_else_for_itself(self, glob: str, text: str, expected: bool) -> None:
        assert matches(glob, text) is expected

    def test_a_template_can_be_copied_into_a_rule(self) -> None:
        """Its `<*>` is what varies, not a wildcard."""
        assert matches("user <*> logged in from <*>", "user <*> logged in from <*>")
        assert not matches("user <*> logged in", "user admin logged in")
        assert matches("user <*> logged in*", "user <*> logged in from <*>")

    @given(st.text(alphabet="ab*<>", max_size=12), st.text(alphabet="ab*<>", max_size=12))
    def test_matching_agrees_with_a_regular_expression(self, glob: str, text: str) -> None:
        import re

        parts = [re.escape("<*>") if part == "<*>" else ".*" if part == "*" else re.escape(part)
                 for part in re.findall(r"<\*>|\*|[^*]", glob, re.DOTALL)]  # fmt: skip
        assert matches(glob, text) is bool(re.fullmatch("".join(parts), text, re.DOTALL))

    def test_matching_takes_no_exponential_time(self) -> None:
        """A regular expression made of this glob would not come back."""
        assert not matches("*a" * 500 + "b", "a" * 100_000)

    @pytest.mark.parametrize(
        ("glob", "logger", "expected"),
        [
            ("urllib3", "urllib3", True),
            ("urllib3", "urllib3.connectionpool", True),
            ("urllib3", "urllib3x", False),
            ("urllib3.*", "urllib3.connectionpool", True),
            ("urllib3.*", "urllib3", False),
            ("*.access", "gunicorn.access", True),
            ("*.access", "gunicorn.access.more", True),
            ("app.*.db", "app.shop.db", True),
            ("", "app", False),
        ],
    )
    def test_a_logger_is_covered_with_those_below_it(self, glob: str, logger: str, expected: bool) -> None:
        assert covers(glob, logger) is expected


class TestTheMostSpecificRuleDecides:
    def test_pattern_then_template_then_logger_then_severity_then_the_rate(self) -> None:
        ladder = [
            Rule("pattern", rate=0.1, pattern=ID),
            Rule("template", rate=0.1, template="GET <*> took <*>"),
            Rule("looser template", rate=0.1, template="GET *"),
            Rule("logger", rate=0.1, logger="app.http"),
            Rule("looser logger", rate=0.1, logger="app"),
            Rule("severity", rate=0.1, severities=frozenset({"info"})),
            Rule("severities", rate=0.1, severities=frozenset({"info", "warn"})),
        ]
        for place, rule in enumerate(ladder):
            assert deciding(*ladder[place:]) == rule.name
            assert deciding(*reversed(ladder[place:])) == rule.name
        assert deciding() is None

    def test_an_event_is_more_specific_than_a_template(self) -> None:
        event, template = (
            Rule("event", rate=0.1, event="e"),
            Rule("t", rate=0.1, template="GET <*> took <*>", event="e"),
        )
        assert deciding(event, replace(template, event=None), event="e") == "event"
        assert deciding(event, template, event="e") == "t"

    def test_a_rule_that_also_restricts_beats_the_same_without(self) -> None:
        plain = Rule("plain", rate=0.1, template="GET *")
        for narrower in (
            replace(plain, name="narrower", logger="app"),
            replace(plain, name="narrower", severities=frozenset({"info"})),
        ):
            assert deciding(plain, narrower) == deciding(narrower, plain) == "narrower"

    def test_of_equal_rules_the_later_decides(self) -> None:
        assert deciding(Rule("one", rate=0.1, logger="app"), Rule("two", rate=0.2, logger="app")) == "two"

    def test_what_a_rule_leaves_out_the_next_one_gives(self) -> None:
        rules = with_rules(Rule("first only", first=2, template="GET *"), Rule("rate only", rate=0.3, logger="app"))
        assert rules.ruling(ID, "GET <*>", "info", "app") == Ruling(0.3, 2, "rate only")

    def test_without_a_rule_the_severity_decides(self) -> None:
        assert BASE.ruling(ID, "t", "debug", "app") == Ruling(0.05, 10, None)

    def test_a_rule_for_other_severities_does_not_match(self) -> None:
        rule = Rule("warn", rate=0.1, severities=frozenset({"warn"}))
        assert deciding(rule) is None
        assert deciding(rule, severity="warn") == "warn"


names = st.sampled_from(["", "app", "app.http", "a*", "*", "GET <*>", "x"])
some_rules = st.lists(
    st.builds(
        Rule,
        name=st.just("rule"),
        rate=st.none() | st.floats(0, 1),
        first=st.none() | st.integers(1, 50),
        pattern=st.none() | st.just(ID),
        template=st.none() | names,
        logger=st.none() | names,
        event=st.none() | names,
        severities=st.frozensets(st.sampled_from(SEVERITIES)),
    ),
    max_size=6,
)


class TestPromises:
    @given(some_rules, st.sampled_from(["error", "fatal"]), names, names, st.none() | names)
    def test_errors_are_always_kept(
        self, rules: list[Rule], severity: Severity, template: str, logger: str, event: str | None
    ) -> None:
        """The first promise, whatever a policy says."""
        assert with_rules(*rules).ruling(ID, template, severity, logger, event).rate == 1.0

    @given(some_rules, st.sampled_from(SEVERITIES), names, names, st.none() | names)
    def test_every_ruling_keeps_a_first_record_and_has_a_rate(
        self, rules: list[Rule], severity: Severity, template: str, logger: str, event: str | None
    ) -> None:
        ruling = with_rules(*rules).ruling(ID, template, severity, logger, event)
        assert ruling.first >= 1
        assert 0 <= ruling.rate <= 1

    def test_events_are_kept_unless_a_rule_names_the_event(self) -> None:
        rules = with_rules(
            Rule("id", rate=0.0, pattern=ID),
            Rule("all", rate=0.0, template="*"),
            Rule("named", rate=0.5, event="e.one"),
        )
        assert rules.ruling(ID, "t", "info", "app", "e.two") == Ruling(1.0, 10, None)
        assert rules.ruling(ID, "t", "info", "app", "e.one") == Ruling(0.5, 10, "named")

    def test_a_rule_for_an_event_is_not_for_other_records(self) -> None:
        assert deciding(Rule("named", rate=0.5, event="e")) is None

    def test_weirs_own_events_are_kept(self) -> None:
        """They carry the exact counts."""
        name = "weir.log.pattern.rollup"
        assert with_rules(Rule("r", rate=0.0, event=name)).ruling(ID, "t", "info", "app", name).rate == 1.0

    def test_the_rules_need_no_pydantic_and_no_yaml(self) -> None:
        """A service without a policy must not pay for their import."""
        code = (
            "import sys, otelweir.pipeline.sample.logs.rules;"
            "print([name for name in ('pydantic', 'yaml', 'opentelemetry') if name in sys.modules])"
        )
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert run.stdout.strip() == "[]"


class TestLoggerKeys:
    @given(some_rules, st.lists(names, min_size=2, max_size=2), names, st.sampled_from(SEVERITIES), st.none() | names)
    def test_loggers_with_equal_keys_have_equal_rulings(
        self, rules: list[Rule], loggers: list[str], template: str, severity: Severity, event: str | None
    ) -> None:
        """So the sampler may treat their streams as one."""
        policy = with_rules(*rules)
        one, two = loggers
        if policy.logger_key(one) == policy.logger_key(two):
            assert policy.ruling(ID, template, severity, one, event) == policy.ruling(
                ID, template, severity, two, event
            )

    def test_loggers_that_no_rule_tells_apart_share_a_key(self) -> None:
        policy = with_rules(Rule("r", rate=0.1, logger="app"), Rule("s", rate=0.1, logger="db"))
        assert policy.logger_key("app.one") == policy.logger_key("app.two") != policy.logger_key("db")
        assert policy.logger_key("x") == policy.logger_key("y")

    def test_the_memory_for_logger_names_is_bounded(self) -> None:
        policy = with_rules(Rule("r", rate=0.1, logger="app"))
        keys = {policy.logger_key(f"app.{number}") for number in range(10_000)}
        assert len(keys) == 1
        assert len(policy._logger_keys) <= 4096

    def test_the_cache_does_not_make_equal_policies_differ(self) -> None:
        one, two = with_rules(), with_rules()
        one.logger_key("app")
        assert one == two


class TestOverlay:
    def test_what_is_not_given_stays(self) -> None:
        assert Overlay().over(BASE) == BASE

    def test_what_is_given_wins_field_by_field(self) -> None:
        rule, higher_rule = Rule("low", rate=0.1, logger="a"), Rule("high", rate=0.2, logger="a")
        low = Overlay(mode="dry-run", rates={"debug": 0.5, "info": 0.5}, first=3, rules=(rule,))
        high = Overlay(rates={"debug": 0.0}, window_s=5.0, budget_per_s=7.0, rules=(higher_rule,))
        both = high.over(low.over(BASE))
        assert both == Rules(
            mode="dry-run",
            rates={**BASE.rates, "debug": 0.0, "info": 0.5},
            first=3,
            window_s=5.0,
            budget_per_s=7.0,
            rules=(rule, higher_rule),
        )
        assert both.ruling(ID, "t", "info", "a").rule == "high"

    def test_a_policy_can_lift_the_budget(self) -> None:
        assert Overlay(budget_per_s=math.inf).over(replace(BASE, budget_per_s=5.0)).budget_per_s is None
