"""Policy documents: what is accepted, and that every problem is told with its line."""

from __future__ import annotations

import builtins
import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel

from otelweir import errors
from otelweir.pipeline.sample.logs.document import MAX_BYTES, MAX_PROBLEMS
from otelweir.pipeline.sample.logs.policy import Policy, RuleEntry, SpanRuleEntry, Traces, parse
from otelweir.pipeline.sample.logs.rules import Overlay, Rule, matches

EXAMPLE = Path(__file__).parents[4] / "examples" / "policy.yaml"

ALL = """\
version: 1
sampling: dry-run
rates: {debug: 0.05, info: 2e-1}
first: 10
window: 5m
budget: 100
rules:
  - name: health
    template: "GET /health*"
    pattern: 9F86d081884c7d65
    logger: "urllib3.*"
    severity: [INFO, debug]
    rate: 0.01
    first: 3
  - event: gen_ai.evaluation.result
    rate: .5
"""


def problems(text: str | bytes, name: str = "policy.yaml") -> list[str]:
    with pytest.raises(errors.PolicyError) as caught:
        parse(text if isinstance(text, bytes) else text.encode(), name)
    assert caught.value.problem is errors.POLICY_INVALID
    return caught.value.detail.splitlines()


@pytest.fixture(params=["c parser", "python parser"])
def _both_parsers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wheels of pyyaml bring a C parser; builds from source may not."""
    if request.param == "python parser":
        monkeypatch.delattr(yaml, "CSafeLoader", raising=False)


@pytest.mark.usefixtures("_both_parsers")
class TestWhatIsAccepted:
    def test_everything_a_policy_can_say(self) -> None:
        expected = Overlay(
            mode="dry-run",
            rates={"debug": 0.05, "info": 0.2},
            first=10,
            window_s=300.0,
            budget_per_s=100.0,
            rules=(
                Rule(
                    "health",
                    rate=0.01,
                    first=3,
                    template="GET /health*",
                    pattern="9f86d081884c7d65",
                    logger="urllib3.*",
                    severities=frozenset({"info", "debug"}),
                ),
                Rule("rules[1] of p", rate=0.5, event="gen_ai.evaluation.result"),
            ),
        )
        assert parse(ALL.encode(), "policy.yaml").overlay("p") == expected
        as_json = json.dumps(yaml.safe_load(ALL)).replace('"2e-1"', "2e-1").replace('".5"', "0.5")
        assert parse(as_json.encode(), "policy.json").overlay("p") == expected

    def test_the_example_is_valid(self) -> None:
        assert len(parse(EXAMPLE.read_bytes(), "policy.yaml").rules) == 5

    def test_a_policy_may_set_nothing(self) -> None:
        assert parse(b"{}", "policy.yaml").overlay("p") == parse(b"{}", "policy.json").overlay("p") == Overlay()

    @pytest.mark.parametrize("word", ["on", "On", "yes", "true", '"on"'])
    def test_on_may_be_written_as_yaml_writes_booleans(self, word: str) -> None:
        assert parse(f"sampling: {word}".encode(), "p.yaml").sampling == "on"

    @pytest.mark.parametrize("word", ["off", "no", "false"])
    def test_off_may_be_written_as_yaml_writes_booleans(self, word: str) -> None:
        assert parse(f"sampling: {word}".encode(), "p.yaml").sampling == "off"

    def test_json_booleans_are_on_and_off(self) -> None:
        assert parse(b'{"sampling": true}', "p.json").sampling == "on"
        assert parse(b'{"sampling": false}', "p.json").sampling == "off"

    @pytest.mark.parametrize("id_", ["1234567890123456", "0123456701234567", "1234567890123e45", "overflow00000000"])
    def test_a_pattern_id_that_looks_like_a_number_stays_what_it_is(self, id_: str) -> None:
        """YAML 1.1 reads the second one as an octal number."""
        assert parse(f"rules: [{{pattern: {id_}, rate: 1}}]".encode(), "p.yaml").rules[0].pattern == id_

    def test_a_budget_can_be_lifted(self) -> None:
        assert parse(b"budget: none", "p.yaml").overlay("p").budget_per_s == math.inf

    def test_a_byte_order_mark_is_skipped(self) -> None:
        assert parse(b"\xef\xbb\xbffirst: 3", "p.yaml").first == 3
        assert parse(b'\xef\xbb\xbf{"first": 3}', "p.json").first == 3

    def test_without_a_telling_name_a_brace_means_json(self) -> None:
        assert parse(b'{"first": 3}', "https://example.com/policy").first == 3
        assert parse(b"first: 3", "https://example.com/policy").first == 3

    def test_anchors_may_be_used(self) -> None:
        text = "rules:\n  - &a {logger: x, rate: 0.5}\n  - *a\n"
        assert [rule.rate for rule in parse(text.encode(), "p.yaml").rules] == [0.5, 0.5]

    def test_an_error_severity_may_be_given_first_records_or_the_full_rate(self) -> None:
        text = b"rules:\n  - {severity: error, first: 3}\n  - {severity: [error, warn], rate: 1}\n"
        assert len(parse(text, "p.yaml").rules) == 2


@pytest.mark.usefixtures("_both_parsers")
class TestWhatIsWrong:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("first: 0", "policy.yaml:1: first: 0 is not a whole number from 1 to 1000000"),
            ("\n\nrates:\n  info: 1.5", "policy.yaml:4: rates.info: 1.5 is not a number from 0 to 1"),
            ("rates: {info: .nan}", "policy.yaml:1: rates.info: '.nan' is not a number from 0 to 1"),
            ("rates: {info: }", "policy.yaml:1: rates.info: nothing is not a number from 0 to 1"),
            ("rates: {wran: 1}", "policy.yaml:1: rates.wran: unknown key; did you mean warn?"),
            (
                "rates: {error: 1}",
                "policy.yaml:1: rates.error: error and fatal are always kept, whatever a policy says",
            ),
            (
                "rates: {FATAL: 0}",
                "policy.yaml:1: rates.FATAL: error and fatal are always kept, whatever a policy says",
            ),
            ("rates: 0.5", "policy.yaml:1: rates: 0.5 is not a mapping"),
            ("rules: {a: 1}", "policy.yaml:1: rules: a mapping is not a list"),
            ("rules: [3]", "policy.yaml:1: rules[0]: 3 is not a mapping"),
            ("window: 0", "policy.yaml:1: window: 0 is not seconds, 1 or more (or a number with ms, s, m or h)"),
            ("budget: 0", "policy.yaml:1: budget: 0 is not a number above 0, or none"),
            ("sampling: maybe", "policy.yaml:1: sampling: 'maybe' is not on, dry-run or off"),
            ("version: 2", "policy.yaml:1: version: 2 is not 1, the only version there is"),
            ("ruels: []", "policy.yaml:1: ruels: unknown key; did you mean rules?"),
            (
                "rules:\n  - {rate: 1}",
                "policy.yaml:2: rules[0]: a rule needs one of pattern, template, logger, event, severity; "
                "`rates` sets rates by severity",
            ),
            ("rules:\n  - {logger: a}", "policy.yaml:2: rules[0]: a rule needs `rate` or `first`"),
            (
                "rules:\n  - severity: [info, error]\n    rate: .5",
                "policy.yaml:2: rules[0].severity: error and fatal are always kept, whatever a policy says",
            ),
            (
                "rules:\n  - event: weir.log.pattern.rollup\n    rate: .5",
                "policy.yaml:2: rules[0].event: Weir's own events carry the exact counts and are always kept",
            ),
            (
                "rules:\n  - pattern: abc\n    rate: 1",
                "policy.yaml:2: rules[0].pattern: 'abc' is not 16 hexadecimal digits, as weir.pattern.id has them",
            ),
            (
                "rules:\n  - severity: inf\n    rate: 1",
                "policy.yaml:2: rules[0].severity: 'inf' is not one of unspecified, trace, debug, info, warn, error, "
                "fatal, or a list of them",
            ),
            ("first: 1\nfirst: 2", "policy.yaml:2: first: is given twice; first in line 1"),
            ("? [a]\n: 1", "policy.yaml:1: a key is text"),
            ("first: !!python/object:os.system 3", None),
            ("<<: {first: 3}", None),
            ("- 1", "policy.yaml:1: a list is not a mapping"),
            ("5", "policy.yaml:1: 5 is not a mapping"),
            ("", "policy.yaml: is empty; a policy that sets nothing is {}"),
            (" \n", "policy.yaml: is empty; a policy that sets nothing is {}"),
            ("# nothing\n", "policy.yaml: holds no policy, only comments; a policy that sets nothing is {}"),
            ("---\nfirst: 1\n---\nfirst: 2", "policy.yaml:3: holds a second document; a policy is one"),
            ("first: *a", "policy.yaml:1: first: *a refers to nothing that ends before it"),
            ("rules: &a [*a]", "policy.yaml:1: rules[0]: *a refers to nothing that ends before it"),
        ],
    )
    def test_a_problem_names_line_key_and_the_allowed_form(self, text: str, expected: str | None) -> None:
        found = problems(text)
        assert len(found) == 1
        if expected is not None:
            assert found == [expected]

    def test_all_problems_are_told_in_the_order_of_the_file(self) -> None:
        text = "first: 0\nrates: {info: 2, foo: 1}\nwindow: x\nrules:\n"
        text += "  - rate: 7\n    tempalte: a\n  - first: 0\n    logger: ''\n"
        assert [line.split(": ")[0:2] for line in problems(text)] == [
            ["policy.yaml:1", "first"],
            ["policy.yaml:2", "rates.info"],
            ["policy.yaml:2", "rates.foo"],
            ["policy.yaml:3", "window"],
            ["policy.yaml:5", "rules[0]"],
            ["policy.yaml:5", "rules[0].rate"],
            ["policy.yaml:6", "rules[0].tempalte"],
            ["policy.yaml:7", "rules[1].first"],
            ["policy.yaml:8", "rules[1].logger"],
        ]

    def test_very_many_problems_are_counted(self) -> None:
        found = problems("\n".join(f"key{number}: 1" for number in range(200)))
        assert len(found) == MAX_PROBLEMS + 1
        assert found[-1] == "policy.yaml: and 150 more problems"

    def test_tabs_are_explained(self) -> None:
        (found,) = problems("rates:\n\tinfo: 1")
        assert found.startswith("policy.yaml:2: is not YAML: ")
        assert "spaces, not with tabs" in found

    def test_text_that_is_not_utf_8_is_told_with_its_line(self) -> None:
        assert problems(b"first: 1\n# caf\xe9") == ["policy.yaml:2: byte 0xe9 is not UTF-8"]
        assert problems("first: 1".encode("utf-16")) == ["policy.yaml:1: is UTF-16; save it as UTF-8"]

    def test_a_control_character_is_told_with_its_line(self) -> None:
        (found,) = problems("first: 1\nname: \x07")
        assert found.startswith("policy.yaml:2: is not YAML: ")


class TestBounds:
    def test_a_document_that_is_too_long_is_not_looked_at(self) -> None:
        assert problems(b"#" * (MAX_BYTES + 1)) == ["policy.yaml: is longer than 1,048,576 bytes"]

    @pytest.mark.parametrize("opening", ["[", "{a: ", "- "])
    def test_deep_nesting_ends_at_a_depth(self, opening: str) -> None:
        (found,) = problems(opening * 100_000)
        assert "nested" in found

    @pytest.mark.parametrize("opening", ["[", '{"a":'])
    def test_deep_nesting_in_json_ends_at_a_depth(self, opening: str) -> None:
        (found,) = problems(opening * 100_000, "policy.json")
        assert "nested" in found

    def test_aliases_cannot_multiply(self) -> None:
        lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
        lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
        assert "more than 20,000 values" in problems("\n".join(lines))[-1]

    def test_a_policy_has_a_bounded_number_of_rules(self) -> None:
        found = problems("rules:\n" + "  - {logger: a, rate: 1}\n" * 1001)
        assert found == ["policy.yaml:1002: rules[1000]: is one of 1,001 rules; a policy has at most 1,000"]

    @pytest.mark.parametrize("number", ["9" * 5000, "1" + "0" * 400, "1e999", "-1e999"])
    def test_huge_numbers_are_problems_like_others(self, number: str) -> None:
        for key in ("first", "window", "budget", "version"):
            assert len(problems(f'{{"{key}": {number}}}', "p.json")) == 1


class TestJson:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ('{"first": 1,}', "p.json:1: is not JSON: a key in double quotes is missing (column 13)"),
            ('{\n"first" 1}', "p.json:2: is not JSON: ':' is missing after the key (column 9)"),
            ('{"first": 1', "p.json:1: is not JSON: ',' or '}' is missing (column 12)"),
            ('{"rules": [1 2]}', "p.json:1: is not JSON: ',' or ']' is missing (column 14)"),
            ('{"first": }', "p.json:1: is not JSON: a value is missing (column 11)"),
            ('{"first": NaN}', "p.json:1: is not JSON: this is not a value (column 11)"),
            ('{"first": 01}', "p.json:1: is not JSON: this is not a value (column 11)"),
            ("{} {}", "p.json:1: is not JSON: the document goes on after its end (column 4)"),
            ('{"a', "p.json:1: is not JSON: unterminated string starting (column 2)"),
            ('{"first": 1,\n"first": 2}', "p.json:2: first: is given twice; first in line 1"),
            (
                '{"rules": [\n{"logger": null, "rate": 1}]}',
                "p.json:2: rules[0].logger: nothing is not a logger name{WORDS}",
            ),
            (
                '{"rules": [{"logger": "\\ud800", "rate": 1}]}',
                "p.json:1: rules[0].logger: '\\ud800' is not a logger name{WORDS}",
            ),
        ],
    )
    def test_a_problem_names_its_line(self, text: str, expected: str) -> None:
        assert problems(text, "p.json") == [expected.replace("{WORDS}", " of 1 to 4096 characters")]

    values: st.SearchStrategy[Any] = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=10,
    )

    @given(values, st.sampled_from([None, 2]))
    def test_what_is_json_is_read_as_json(self, value: Any, indent: int | None) -> None:
        """Our reader knows lines; it must accept exactly what the standard library's does."""
        try:
            parse(json.dumps(value, indent=indent).encode(), "p.json")
        except errors.PolicyError as error:
            assert "is not JSON" not in error.detail

    @given(st.text(alphabet='{}[]",: \n0123e-+.truefalsn\\u', max_size=30))
    def test_what_is_not_json_is_refused(self, text: str) -> None:
        try:
            json.loads(text, parse_constant=lambda name: 1 / 0)
            valid = True
        except (ValueError, ZeroDivisionError):
            valid = False
        try:
            parse(text.encode(), "p.json")
            found = ""
        except errors.PolicyError as error:
            found = error.detail
        assert ("is not JSON" in found or "is empty" in found) is not valid


class TestWhateverComes:
    @given(st.binary(max_size=300), st.sampled_from(["p.yaml", "p.json", "p"]))
    @example(b'"\\U99999999"', "p.yaml")
    @example(b"%YAML 99999999999999999999999.1\n---\na", "p.yaml")
    @example(b"\x00", "p.yaml")
    @example(b"? ", "p.yaml")
    @example(b"a: !<> b", "p.yaml")
    def test_bytes_give_a_policy_or_a_policy_error(self, data: bytes, name: str) -> None:
        try:
            assert isinstance(parse(data, name), Policy)
        except errors.PolicyError as error:
            assert error.detail.startswith(name)

    fragments = st.lists(
        st.sampled_from(
            [
                "rules:",
                "rates:",
                "first:",
                "- ",
                "  ",
                "\n",
                "\t",
                "&a ",
                "*a ",
                "!!str ",
                "{",
                "}",
                "[",
                "]",
                "'",
                '"',
                "|",
                ">",
                ": ",
                ", ",
                "#",
                "1",
                "0.5",
                "null",
                "~",
                "on",
                "error",
                "rate",
                "severity: ",
                "? ",
                "---",
                "%",
                "\\x",
                "\u2028",
                "\U0001f600",
                "<<: ",
            ]
        ),
        max_size=40,
    )

    @pytest.mark.parametrize("loader", ["CSafeLoader", "SafeLoader"])
    @given(fragments=fragments)
    def test_pieces_of_policies_give_a_policy_or_a_policy_error(self, loader: str, fragments: list[str]) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(yaml, "CSafeLoader", getattr(yaml, loader, yaml.SafeLoader), raising=False)
            try:
                parse("".join(fragments).encode(), "p.yaml")
            except errors.PolicyError as error:
                assert error.detail.startswith("p.yaml")


class TestWithoutPyyaml:
    def test_json_is_read_and_yaml_names_the_remedy(self, monkeypatch: pytest.MonkeyPatch) -> None:
        real = builtins.__import__

        def refusing(name: str, *args: Any, **kwargs: Any) -> Any:
            if name == "yaml":
                raise ImportError(name)
            return real(name, *args, **kwargs)

        monkeypatch.setattr(builtins, "__import__", refusing)
        assert parse(b'{"first": 3}', "policy.json").first == 3
        with pytest.raises(errors.PolicyError, match=r"pip install 'otelweir\[yaml\]'") as caught:
            parse(b"first: 3", "policy.yaml")
        assert caught.value.problem is errors.MISSING_EXTRA

    def test_reading_json_does_not_import_it(self) -> None:
        code = (
            "import sys; from otelweir.pipeline.sample.logs.policy import parse; parse(b'{}', 'p.json');"
            "print('yaml' in sys.modules)"
        )
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert run.stdout.strip() == "False"


class TestTheGuide:
    """docs/policy.md promises these."""

    GUIDE = (EXAMPLE.parents[1] / "docs" / "policy.md").read_text()

    def test_its_example_is_valid(self) -> None:
        text = self.GUIDE.partition("```yaml\n")[2].partition("```")[0]
        assert len(parse(text.encode(), "policy.yaml").rules) == 2

    @pytest.mark.parametrize("model", [Policy, RuleEntry, Traces, SpanRuleEntry])
    def test_it_has_every_key_in_order(self, model: type[BaseModel]) -> None:
        rows = re.findall(r"^\| `(\w+)` \|", self.GUIDE, re.MULTILINE)
        keys = list(model.model_fields)
        assert any(rows[start : start + len(keys)] == keys for start in range(len(rows)))

    @pytest.mark.parametrize(
        ("glob", "template", "expected"),
        [
            ("user <*> logged in", "user <*> logged in", True),
            ("user <*> logged in", "user <*> logged in from <*>", False),
            ("user <*> logged in*", "user <*> logged in from <*>", True),
            ("*timeout*", "timeout after <*>", True),
            ("*timeout*", "Timeout after <*>", False),
            ("GET /health*", "GET /health took <*>", True),
            ("GET /health*", "GET <*>", False),
        ],
    )
    def test_its_examples_of_matching_hold(self, glob: str, template: str, expected: bool) -> None:
        assert matches(glob, template) is expected
