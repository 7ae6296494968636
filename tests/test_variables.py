"""What a setting accepts: each form reads what its words say, and nothing else."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelweir import errors, settings
from otelweir.variables import (
    Form,
    documentation,
    flag,
    number,
    one_of,
    rates,
    seconds,
    secret,
    setting,
    shown,
    text,
    variables,
    whole,
)

RATES = rates({"debug": 0.05, "info": 0.2}, {"error": "errors are always kept"})
FORMS: Mapping[str, Form[Any]] = {
    **{var.name: var.form for var in settings.VARIABLES.values()},
    "one_of": one_of("on", "off"),
    "whole": whole(1, 9),
    "above": number(above=0),
    "least": number(least=0),
    "seconds": seconds(1, 10),
    "flag": flag(),
    "text": text("a word", r"\w+"),
    "secret": secret("a token"),
    "rates": RATES,
}

GOOD: list[tuple[str, object, object]] = [
    ("one_of", " ON ", "on"),
    ("whole", "7", 7),
    ("whole", 7, 7),
    ("whole", " 9 ", 9),
    ("above", "0.5", 0.5),
    ("above", 2, 2.0),
    ("least", "0", 0.0),
    ("seconds", "1500ms", 1.5),
    ("seconds", "2 s", 2.0),
    ("seconds", "0.1m", 6.0),
    ("seconds", ".002h", 7.2),
    ("seconds", "3", 3.0),
    ("seconds", 3, 3.0),
    ("flag", "Yes", True),
    ("flag", "0", False),
    ("flag", True, True),
    ("text", " word ", "word"),
    ("text", Path("word"), "word"),
    ("secret", "hush", "hush"),
    ("rates", "debug=0.5", {"debug": 0.5, "info": 0.2}),
    ("rates", " INFO = 1 ,", {"debug": 0.05, "info": 1.0}),
    ("rates", {"info": 0}, {"debug": 0.05, "info": 0.0}),
]
BAD: list[tuple[str, object]] = [
    ("one_of", "maybe"),
    ("one_of", True),
    ("whole", "7.0"),
    ("whole", 7.0),
    ("whole", True),
    ("whole", "0"),
    ("whole", "10"),
    ("above", "0"),
    ("above", "nan"),
    ("above", "inf"),
    ("above", True),
    ("least", "-0.1"),
    ("seconds", "0.5"),
    ("seconds", "1m"),
    ("seconds", "5 weeks"),
    ("seconds", "-5"),
    ("seconds", ""),
    ("flag", "maybe"),
    ("flag", 1),
    ("text", "two words"),
    ("text", 7),
    ("rates", "debug"),
    ("rates", "debug=2"),
    ("rates", "debug=nan"),
    ("rates", "error=0.5"),
    ("rates", "verbose=0.5"),
    ("rates", {"debug": True}),
]


class TestForms:
    @pytest.mark.parametrize(("form", "given", "expected"), GOOD)
    def test_read_what_their_words_allow(self, form: str, given: object, expected: object) -> None:
        assert FORMS[form].read(given) == expected

    @pytest.mark.parametrize(("form", "given"), BAD)
    def test_refuse_everything_else(self, form: str, given: object) -> None:
        with pytest.raises((ValueError, TypeError)):
            FORMS[form].read(given)

    @pytest.mark.parametrize("name", FORMS)
    @given(
        value=st.text()
        | st.integers()
        | st.floats()
        | st.booleans()
        | st.none()
        | st.dictionaries(st.text(), st.text())
    )
    def test_never_raise_anything_else(self, name: str, value: object) -> None:
        """`settings.load` catches these three; another exception would reach the application."""
        try:
            FORMS[name].read(value)
        except (ValueError, TypeError, AttributeError):
            pass

    @pytest.mark.parametrize("name", [name for name in FORMS if name in {v.name for v in settings.VARIABLES.values()}])
    def test_read_what_they_show(self, name: str) -> None:
        """What `weir doctor` prints can be pasted into a variable."""
        field = next(field for field, var in settings.VARIABLES.items() if var.name == name)
        default = getattr(settings.Settings(), field)
        if default is not None:
            assert FORMS[name].read(shown(default)) == default

    @given(st.floats(min_value=0.001, max_value=1e6))
    def test_a_time_means_the_same_in_every_unit(self, time_s: float) -> None:
        read = seconds(0).read
        for unit, factor in (("ms", 0.001), ("s", 1), ("m", 60), ("h", 3600)):
            assert math.isclose(read(f"{time_s / factor:.15f}{unit}"), time_s, rel_tol=1e-5)

    @given(st.dictionaries(st.sampled_from(["debug", "info"]), st.floats(0, 1)))
    def test_rates_keep_the_defaults_of_what_is_not_named(self, given: dict[str, float]) -> None:
        written = ",".join(f"{name}={rate!r}" for name, rate in given.items())
        assert RATES.read(written) == RATES.read(given) == {"debug": 0.05, "info": 0.2, **given}


class TestSecrets:
    def test_do_not_show_themselves(self) -> None:
        value = secret("a token").read("hush")
        assert repr(value) == "Secret('***')"
        assert shown(value) == "***"
        assert f"{[value]}" == "[Secret('***')]"
        assert value == "hush"


class TestShown:
    @pytest.mark.parametrize(
        ("value", "expected"),
        [(None, "unset"), (True, "true"), (0.2, "0.2"), (5.0, "5"), (7, "7"), ({"a": 0.5}, "a=0.5"), ("x", "x")],
    )
    def test_is_what_one_would_write(self, value: object, expected: str) -> None:
        assert shown(value) == expected


@dataclass(frozen=True)
class Section:
    first: int = setting("WEIR_FIRST", 1, whole(1))
    """The first
    setting."""

    second: int = setting("WEIR_SECOND", 2, whole(1))


class TestSections:
    def test_a_field_has_its_variable_and_its_default(self) -> None:
        assert {name: var.name for name, var in variables(Section).items()} == {
            "first": "WEIR_FIRST",
            "second": "WEIR_SECOND",
        }
        assert (Section().first, Section().second) == (1, 2)

    def test_the_string_below_a_field_is_its_documentation(self) -> None:
        assert documentation(Section) == {"first": "The first setting."}


class TestAddresses:
    @pytest.mark.parametrize("given", ["bob:hush@h", "http:/u:hush@h", "ftp://u:a hush@h"])
    def test_that_cannot_be_used_are_reported_without_credentials(
        self, given: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        errors.forget_warnings()
        settings.load({"WEIR_POLICY_URL": given})
        assert "WEIR_POLICY_URL='" in caplog.text
        assert "hush" not in caplog.text

    @pytest.mark.parametrize("given", ["https://u:hush@h/p", "HTTP:/u:hush@h", "s3://u:hush@h/p"])
    def test_are_no_paths(self, given: str, caplog: pytest.LogCaptureFixture) -> None:
        errors.forget_warnings()
        assert settings.load({"WEIR_POLICY_FILE": given}).settings.policy_file is None
        assert "set WEIR_POLICY_URL for a URL" in caplog.text
        assert "hush" not in caplog.text
