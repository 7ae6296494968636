"""Which patterns of somebody's own are accepted: those that take a bounded time at each place of a text."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelweir.pipeline.redact import rules
from otelweir.pipeline.redact.own import compiled
from otelweir.pipeline.redact.section import flaws


@pytest.mark.parametrize(
    "pattern", [r"ACME-[0-9]{4,8}", r"user ([a-z]{1,20})", r"(?i)id:\s{0,3}\w{1,40}", r"a|b{1,9}|c"]
)
def test_accepted(pattern: str) -> None:
    assert compiled(pattern).pattern == pattern


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        (r"(a+)+b", "no end"),
        (r"\d*x", "no end"),
        (r"(a{1,9}){1,9}b", "ways to try it"),
        (r"xa{0,30}b{0,30}c{0,30}", "ways to try it"),
        (r"(a)\1", "refers back"),
        (r"a{0,5}", "matches nothing"),
        (r"[", "no regular expression"),
        (r"x" * 501, "1 to 500 characters"),
        (r"(?:a{1000}){2}", "more than 1024 characters"),
    ],
)
def test_refused_with_the_reason(pattern: str, why: str) -> None:
    with pytest.raises(ValueError, match=re.escape(why)):
        compiled(pattern)


@given(st.text(alphabet="ab()[]{}|*+?.\\d,0123456789^$-", max_size=12))
def test_any_text_is_accepted_or_refused(pattern: str) -> None:
    try:
        compiled(pattern)
    except ValueError as error:
        assert str(error)


def test_no_built_in_rule_is_missing() -> None:
    from otelweir.pipeline.redact.plan import NAME, RULES

    assert {NAME, *rules.RULES} == set(RULES)


class TestASection:
    def test_that_is_right_has_no_flaws(self) -> None:
        section = {
            "action": ["mask", "email=hash", "ticket=drop"],
            "rules": "default, ipv4, -phone",
            "keys": ["customer_code"],
            "allow": "*@example.com",
            "own": [{"name": "ticket", "pattern": "ACME-[0-9]{4,8}", "action": "hash"}],
            "signals": {"traces": {"rules": ["email"]}, "metrics": None},
        }
        assert list(flaws(section)) == []
        assert list(flaws(None)) == []

    @pytest.mark.parametrize(
        ("section", "path", "words"),
        [
            ("on", (), "is not a mapping"),
            ({"rule": "x"}, ("rule",), "unknown key"),
            ({"rules": "emails"}, ("rules",), "'emails' is not one of"),
            ({"action": "hide"}, ("action",), "'hide' is not one of mask"),
            ({"keys": {"a": "b"}}, ("keys",), "is not a word or a list"),
            ({"signals": {"spans": {}}}, ("signals", "spans"), "unknown signal"),
            ({"signals": {"logs": {"signals": {}}}}, ("signals", "logs", "signals"), "unknown key"),
            ({"own": [{"name": "x"}]}, ("own", 0), "needs `name` and `pattern`"),
            ({"own": [{"name": "x", "pattern": "a+"}]}, ("own", 0, "pattern"), "no end"),
            ({"own": [{"name": "email", "pattern": "a"}]}, ("own", 0, "pattern"), "built-in"),
        ],
    )
    def test_that_is_wrong_says_where(self, section: object, path: tuple[object, ...], words: str) -> None:
        [(where, said)] = flaws(section)
        assert where == path
        assert words in said
