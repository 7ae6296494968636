"""The file of own prices: what is read, and what is refused with its place."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelweir import errors
from otelweir.pipeline.capture.genai.prices import load, parse
from otelweir.pipeline.capture.genai.usage import Usage

JSON = st.recursive(
    st.none() | st.integers() | st.text() | st.floats(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)

GOOD = """
currency: EUR
date: 2026-11-01
models:
  - {provider: OpenAI, model: gpt-4o-mini*, input: 0.12, output: "0.48"}
  - {model: our-llama, input: 0.05, request: 0.001}
"""


class TestAGoodFile:
    def test_gives_the_first_price_that_fits(self, tmp_path: Path) -> None:
        file = tmp_path / "prices.yaml"
        file.write_text(GOOD)
        prices = load(str(file))
        cost = prices.cost("openai", "GPT-4o-mini-2024-07-18", Usage(1_000_000, 1_000_000))
        assert cost is not None
        assert (cost.amount, cost.currency, cost.source, cost.source_date) == (
            Decimal("0.60"),
            "EUR",
            "prices.yaml",
            "2026-11-01",
        )
        ours = prices.cost("anybody", "our-llama", Usage(1_000_000, 5))
        assert ours is not None
        assert ours.amount == Decimal("0.051")
        assert prices.cost("azure", "gpt-4o-mini", Usage(1)) is None

    def test_as_json_needs_no_yaml(self, tmp_path: Path) -> None:
        file = tmp_path / "prices.json"
        file.write_text(json.dumps({"models": [{"model": "m", "output": 1}]}))
        cost = load(str(file)).cost("", "m", Usage(output=1_000_000))
        assert cost is not None
        assert (cost.amount, cost.currency) == (Decimal(1), "USD")
        assert cost.source_date


class TestABadFile:
    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("", "the file: names with values are due, not NoneType"),
            ("models: []", "models: a list with at least one entry is due"),
            ("models: [{model: m, input: cheap}]", "models[0].input: 'cheap' is not a number, 0 or more"),
            ("models: [{model: m, input: -1}]", "models[0].input: -1 is not a number, 0 or more"),
            ("models: [{model: m, input: .nan}]", "models[0].input: nan is not a number, 0 or more"),
            ("models: [{model: m, input: true}]", "models[0].input: True is not a number, 0 or more"),
            ("models: [{model: m}]", "models[0]: at least one price is due, such as input"),
            ("models: [{input: 1}]", "models[0].model: a name is due"),
            ("models: [{model: 4, input: 1}]", "models[0].model: 4 is not text"),
            ("models: [{model: m, inptu: 1}]", "models[0]: 'inptu' is none of audio_cache_read"),
            ("prices: []", "the file: 'prices' is none of currency, date, models, usd_rate"),
            ("{usd_rate: 1.1, models: [{model: m, input: 1}]}", "usd_rate: the currency is USD"),
            ("{currency: EUR, usd_rate: 0, models: [{model: m, input: 1}]}", "usd_rate: 0 is not a number above 0"),
            ("{currency: EUR, usd_rate: x, models: [{model: m, input: 1}]}", "usd_rate: 'x' is not a number"),
            ("models: [{model: m, tier: 5, input: 1}]", "models[0].tier: 5 is not text"),
            ("{currency: euro, models: [{model: m, input: 1}]}", "currency: 'euro' is not a code of three capitals"),
            ("{date: soon, models: [{model: m, input: 1}]}", "date: 'soon' is not a date such as 2026-11-01"),
            ("models: [", "it is not YAML"),
        ],
    )
    def test_is_refused_with_the_place(self, tmp_path: Path, text: str, says: str) -> None:
        file = tmp_path / "prices.yaml"
        file.write_text(text)
        with pytest.raises(errors.WeirError) as caught:
            load(str(file))
        assert caught.value.code == "WEIR-GENAI-001"
        assert f"{file}: {says}" in caught.value.detail

    def test_that_is_not_there_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(errors.WeirError, match="No such file"):
            load(str(tmp_path / "none.yaml"))

    @given(
        st.recursive(
            st.none() | st.integers() | st.text() | st.floats(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
        )
    )
    def test_whatever_it_holds_says_what_is_wrong(self, document: Any) -> None:
        with pytest.raises(ValueError, match=r"."):
            parse(document, "f", "2026-01-01")
