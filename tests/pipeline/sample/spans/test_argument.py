"""`OTEL_TRACES_SAMPLER_ARG`: pairs, a rate, or a policy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelweir.pipeline.sample.spans.argument import flaw_of, policy_of, rules_of
from otelweir.pipeline.sample.spans.rules import SpanRule, TraceRules

POLICY = """\
version: 1
rates: {info: 0.5}
traces:
  rate: 0.25
  per_second: 40
  remote: ignore
  rules:
    - name: health
      span: "GET /health*"
      rate: 0
    - kind: [consumer, producer]
      attributes: {messaging.system: kafka, retries: 3}
      per_second: 5
"""
RULES = TraceRules(
    rate=0.25,
    per_second=40.0,
    remote="ignore",
    rules=(
        SpanRule("health", rate=0.0, span="GET /health*", attributes={}),
        SpanRule(
            "traces.rules[1] of policy.yaml",
            per_second=5.0,
            kinds=frozenset({"consumer", "producer"}),
            attributes={"messaging.system": "kafka", "retries": "3"},
        ),
    ),
)


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("", TraceRules()),
        ("rate=0.1,per_second=50", TraceRules(0.1, 50.0)),
        (" Rate = 0.1 , per_second=0.5, remote=Ignore,", TraceRules(0.1, 0.5, "ignore")),
        ("0.25", TraceRules(0.25)),
        ("per_second=3", TraceRules(1.0, 3.0)),
    ],
)
def test_says_what_is_kept(argument: str, expected: TraceRules) -> None:
    assert rules_of(argument) == expected


@pytest.mark.parametrize(
    ("argument", "why"),
    [
        ("rate=2", "rate is not a number from 0 to 1"),
        ("nan", "rate is not"),
        ("rate", "rate: No such file"),
        ("rate=0.1;per_second=3", "rate is not"),
        ("rate=0.1,rate=0.2", "rate is given twice"),
        ("share=0.1", "'share' is not one of rate, per_second, remote"),
        ("rate=0.1,50", "'50' has no '='"),
        ("per_second=0", "per_second is not a number above 0"),
        ("/nowhere/policy.yaml", "/nowhere/policy.yaml: No such file or directory"),
    ],
)
def test_what_is_wrong_is_told_in_words(argument: str, why: str) -> None:
    with pytest.raises(ValueError) as raised:
        rules_of(argument)
    assert why in str(raised.value)
    assert why in (flaw_of(argument) or "")


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0/~"), max_size=60))
def test_any_text_is_rules_or_a_flaw(argument: str) -> None:
    flaw = flaw_of(argument)
    assert flaw is not None or 0 <= rules_of(argument).rate <= 1


class TestAPolicy:
    def test_says_what_is_kept(self, tmp_path: Path) -> None:
        path = tmp_path / "policy.yaml"
        path.write_text(POLICY)
        assert rules_of(str(path)) == RULES

    @pytest.mark.parametrize(
        ("argument", "policy_file", "expected"),
        [
            ("", "/etc/policy.yaml", "/etc/policy.yaml"),
            ("0.5", "/etc/policy.yaml", None),
            ("rate=0.5", "", None),
            ("./own.yaml", "/etc/policy.yaml", "./own.yaml"),
            ("", "", None),
        ],
    )
    def test_is_the_arguments_or_else_the_services(self, argument: str, policy_file: str, expected: str | None) -> None:
        assert policy_of(argument, policy_file) == expected

    def test_that_says_nothing_of_traces_keeps_all(self, tmp_path: Path) -> None:
        path = tmp_path / "policy.json"
        path.write_text('{"rates": {"info": 0.5}}')
        assert rules_of(str(path)) == TraceRules()

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ('{"traces": {"rate": 2}}', "traces.rate: 2 is not a number from 0 to 1"),
            ('{"traces": {"rats": 1}}', "traces.rats: unknown key; did you mean rate?"),
            ('{"traces": {"rules": [{"rate": 1}]}}', "traces.rules[0]: a rule needs one of span, kind, attributes"),
            ('{"traces": {"rules": [{"span": "x"}]}}', "traces.rules[0]: a rule needs `rate` or `per_second`"),
            ('{"traces": {"rules": [{"kind": "x", "rate": 1}]}}', "'x' is not one of internal, server"),
            ('{"traces": {"rules": [{"logger": "x", "span": "a", "rate": 1}]}}', "rules[0].logger: unknown key"),
            ('{"traces": {"remote": "maybe"}}', "traces.remote: 'maybe' is not honour or ignore"),
            ('{"traces": []}', "traces: a list is not a mapping"),
        ],
    )
    def test_has_its_flaws_told_with_their_place(self, tmp_path: Path, text: str, why: str) -> None:
        path = tmp_path / "policy.json"
        path.write_text(text)
        with pytest.raises(ValueError) as raised:
            rules_of(str(path))
        assert why in str(raised.value)


def test_pairs_bring_no_pydantic() -> None:
    """A service that names no policy does not wait for what reads policies."""
    program = (
        "import sys\nfrom otelweir.pipeline.sample.spans.otel import sampler\nsampler('rate=0.1,per_second=5')\n"
        "assert not {'pydantic', 'yaml', 'ssl'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
