"""All settings: where a value comes from, and what happens to one that cannot be used."""

from __future__ import annotations

import logging
import re
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelweir import errors, settings
from otelweir.settings import Settings, load
from otelweir.variables import documentation, variables


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "otelweir"]


class TestOrigins:
    def test_code_wins_over_the_variable_and_the_variable_over_the_default(self) -> None:
        environ = {"WEIR_LOG_FIRST": "2", "WEIR_LOG_BUDGET": "9"}
        loaded = load(environ, log_first=3)
        assert (loaded.settings.log_first, loaded.settings.log_budget, loaded.settings.log_window) == (3, 9.0, 60.0)
        assert loaded.origins == {"log_first": "code", "log_budget": "variable"}

    def test_rows_tell_every_setting_with_its_origin(self) -> None:
        rows = {name: (value, origin) for name, value, origin in load({"WEIR_LOG_FIRST": "2"}).rows()}
        assert rows["WEIR_LOG_FIRST"] == ("2", "variable")
        assert rows["WEIR_LOG_BUDGET"] == ("unset", "default")
        assert len(rows) == len(settings.VARIABLES)

    @pytest.mark.parametrize("empty", ["", "  "])
    def test_an_empty_variable_counts_as_unset(self, empty: str, caplog: pytest.LogCaptureFixture) -> None:
        assert load({"WEIR_LOG_FIRST": empty}).origins == {}
        assert warnings(caplog) == []

    def test_none_in_code_counts_as_not_given(self) -> None:
        assert load({"WEIR_LOG_FIRST": "2"}, log_first=None).origins == {"log_first": "variable"}

    def test_without_anything_there_are_only_defaults(self, caplog: pytest.LogCaptureFixture) -> None:
        assert asdict(load({}).settings) == asdict(Settings())
        assert warnings(caplog) == []


class TestBadValues:
    def test_warn_with_name_value_and_allowed_form_and_fall_back(self, caplog: pytest.LogCaptureFixture) -> None:
        loaded = load({"WEIR_LOG_FIRST": "none"})
        assert loaded.settings.log_first == 10
        assert loaded.origins == {}
        (said,) = warnings(caplog)
        assert said.startswith(
            "WEIR-CONFIG-001: WEIR_LOG_FIRST='none' is not a whole number, 1 or more; the default is 10. "
        )

    def test_in_code_fall_back_to_the_variable(self, caplog: pytest.LogCaptureFixture) -> None:
        loaded = load({"WEIR_LOG_FIRST": "2"}, log_first=-1)
        assert loaded.settings.log_first == 2
        assert loaded.origins == {"log_first": "variable"}
        assert len(warnings(caplog)) == 1

    def test_are_reported_once(self, caplog: pytest.LogCaptureFixture) -> None:
        for _ in range(3):
            load({"WEIR_LOG_FIRST": "none"})
        assert len(warnings(caplog)) == 1

    def test_a_reason_is_told_where_there_is_one(self, caplog: pytest.LogCaptureFixture) -> None:
        load({"WEIR_LOG_RATES": "error=0.1"})
        assert "(error: errors are always kept)" in warnings(caplog)[0]

    def test_a_secret_is_not_repeated(self, caplog: pytest.LogCaptureFixture) -> None:
        class Unreadable:
            def __repr__(self) -> str:
                return "hush"

        load({}, policy_key=Unreadable())
        assert "hush" not in "".join(warnings(caplog))
        assert "WEIR_POLICY_KEY=***" in warnings(caplog)[0]

    def test_one_bad_value_leaves_the_others_alone(self) -> None:
        assert load({"WEIR_LOG_FIRST": "none", "WEIR_LOG_BUDGET": "9"}).settings.log_budget == 9.0


class TestUnknownNames:
    def test_warn_with_the_nearest(self, caplog: pytest.LogCaptureFixture) -> None:
        load({"WEIR_LOG_RATE": "debug=1"})
        (said,) = warnings(caplog)
        assert said.startswith("WEIR-CONFIG-002: WEIR_LOG_RATE is not a setting of Weir; did you mean WEIR_LOG_RATES?")

    def test_warn_without_one_where_none_is_near(self, caplog: pytest.LogCaptureFixture) -> None:
        load({"WEIR_QQQQQQQQQQQQ": "1"})
        assert "did you mean" not in warnings(caplog)[0]

    def test_of_others_are_left_alone(self, caplog: pytest.LogCaptureFixture) -> None:
        load({"OTEL_LOG_RATE": "1", "WEIRD": "1", "weir_log_first": "1"})
        assert warnings(caplog) == []

    def test_in_code_are_a_mistake_of_the_programmer(self) -> None:
        with pytest.raises(TypeError, match=r"'log_rate' is not a setting of Weir; did you mean log_rates\?"):
            load({}, log_rate=1)


class TestTheModel:
    def test_a_settings_name_is_its_variables_without_the_prefix(self) -> None:
        assert {var.name for var in settings.VARIABLES.values()} == {f"WEIR_{n.upper()}" for n in settings.VARIABLES}

    def test_every_setting_is_documented(self) -> None:
        for section in settings.SECTIONS:
            said = documentation(section)
            assert set(said) == set(variables(section))
            assert all(re.fullmatch(r"\S.*[.]", text) for text in said.values())

    def test_the_sections_make_up_the_model(self) -> None:
        assert [name for section in settings.SECTIONS for name in variables(section)] == list(settings.VARIABLES)

    def test_secrets_are_masked_wherever_settings_are_shown(self) -> None:
        loaded = load({"WEIR_POLICY_KEY": "hush"})
        assert loaded.settings.policy_key == "hush"
        assert "hush" not in repr(loaded) + str(loaded.settings) + str(list(loaded.rows()))


NAMES = st.sampled_from([var.name for var in settings.VARIABLES.values()]) | st.text(max_size=8).map("WEIR_{}".format)
VALUES = st.text() | st.sampled_from(["1", "0.5", "on", "off", "10s", "debug=1", "https://h", "nan", "1" * 5000])


@given(st.dictionaries(NAMES, VALUES, max_size=6))
def test_no_environment_stops_a_service(environ: dict[str, str]) -> None:
    loaded = load(environ)
    again = load({name: value for name, value, origin in loaded.rows() if origin == "variable" and value != "***"})
    logging.getLogger("otelweir").debug("%r", loaded)
    for name in again.origins:
        if not isinstance(getattr(loaded.settings, name), (float, dict)):  # these are rounded where they are shown
            assert getattr(again.settings, name) == getattr(loaded.settings, name)
    errors.forget_warnings()
