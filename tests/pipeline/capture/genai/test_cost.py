"""Tokens from attributes, and what they cost: golden cases, and properties."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelweir.pipeline.capture.genai.catalogue import Catalogue
from otelweir.pipeline.capture.genai.cost import Price, split
from otelweir.pipeline.capture.genai.usage import _NAMES, Usage, tier_of, usage_of

NAMES = sorted({name for names in _NAMES.values() for name in names})
AT = datetime(2026, 11, 20, tzinfo=UTC)
TOKENS = st.dictionaries(
    st.sampled_from(NAMES), st.one_of(st.integers(-5, 10**7), st.text(max_size=2), st.booleans(), st.none())
)
ONE_EACH = Price(**{name: Decimal(1) for name in Price.__dataclass_fields__ if name != "request"})


class TestUsage:
    @given(TOKENS)
    def test_parts_never_exceed_what_they_are_part_of(self, attributes: dict[str, Any]) -> None:
        usage = usage_of(attributes)
        if usage is None:
            return
        assert usage.cache_read + usage.cache_write <= usage.input
        assert usage.cache_write_1h <= usage.cache_write
        assert usage.audio_input + usage.image_input <= usage.input
        assert usage.audio_cache_read + usage.image_cache_read <= usage.cache_read
        assert usage.audio_output + usage.image_output <= usage.output
        assert usage.reasoning <= usage.output
        assert min(getattr(usage, name) for name in Usage.__dataclass_fields__) >= 0

    def test_without_tokens_there_is_none(self) -> None:
        assert usage_of({"gen_ai.request.model": "m", "gen_ai.usage.input_tokens": "many"}) is None

    def test_cached_tokens_that_were_counted_beside_the_input_become_part_of_it(self) -> None:
        """OpenTelemetry counts them in; other instrumentations pass Anthropic's numbers on, which do not."""
        beside = usage_of({"gen_ai.usage.prompt_tokens": 10, "gen_ai.usage.cache_read_input_tokens": 90})
        within = usage_of({"gen_ai.usage.input_tokens": 100, "gen_ai.usage.cache_read.input_tokens": 90})
        assert beside == within == Usage(input=100, cache_read=90)

    def test_the_tier_is_the_providers_word(self) -> None:
        assert tier_of({"openai.response.service_tier": "flex"}) == "flex"
        assert tier_of({}) == ""


class TestOwnPrices:
    @given(TOKENS)
    def test_at_one_price_for_all_every_token_is_counted_once(self, attributes: dict[str, Any]) -> None:
        usage = usage_of(attributes)
        if usage is not None:
            into, out = split(usage, ONE_EACH)
            assert (into * 10**6, out * 10**6) == (Decimal(usage.input), Decimal(usage.output))

    @given(TOKENS)
    def test_a_part_without_a_price_costs_what_the_whole_does(self, attributes: dict[str, Any]) -> None:
        usage = usage_of(attributes)
        if usage is not None:
            into, out = split(usage, Price(input=Decimal(2), output=Decimal(3)))
            assert (into * 10**6, out * 10**6) == (Decimal(usage.input * 2), Decimal(usage.output * 3))

    @pytest.mark.parametrize(
        ("usage", "expected"),
        [
            (Usage(input=1000, output=100), ("0.001", "0.0002")),
            (Usage(input=1000, cache_read=900, cache_write=50), ("0.000225", "0")),
            (Usage(input=1000, cache_write=100, cache_write_1h=60), ("0.00119", "0")),
            (Usage(output=100, reasoning=40), ("0", "0.00032")),
            (Usage(input=100, audio_input=60, cache_read=50, audio_cache_read=20), ("0.000496", "0")),
            (Usage(input=100, image_input=100, output=10, image_output=10), ("0.0003", "0.00009")),
            (Usage(output=100, audio_output=100), ("0", "0.002")),
        ],
        ids=["plain", "cache", "cache for an hour", "reasoning", "audio", "images", "audio out"],
    )
    def test_each_kind_of_token_has_its_price(self, usage: Usage, expected: tuple[str, str]) -> None:
        price = Price(
            input=Decimal(1),
            output=Decimal(2),
            cache_read=Decimal("0.1"),
            cache_write=Decimal("1.7"),
            cache_write_1h=Decimal("3.7"),
            reasoning=Decimal(5),
            audio_input=Decimal(12),
            audio_output=Decimal(20),
            audio_cache_read=Decimal("0.15"),
            image_input=Decimal(3),
            image_output=Decimal(9),
        )
        # 1000 in, 900 of them cached, 50 written: 50 * 1 + 900 * 0.1 + 50 * 1.7 = 225 millionths.
        # 1000 in, 40 written for minutes, 60 for an hour: 900 * 1 + 40 * 1.7 + 60 * 3.7 = 1190.
        # 60 of 100 are audio, 20 of them cached, 30 of the text as well: 40 * 12 + 20 * 0.15 + 30 * 0.1 + 10 * 1 = 496.
        assert split(usage, price) == tuple(Decimal(amount) for amount in expected)


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return Catalogue()


class TestTheCatalogue:
    """Golden cases: list prices of models that have been stable for long."""

    @pytest.mark.parametrize(
        ("provider", "model", "usage", "tier", "expected"),
        [
            ("openai", "gpt-4o-mini", Usage(1_000_000, 1_000_000), "", (".15", ".60")),
            ("openai", "gpt-4o-mini-2024-07-18", Usage(1_000_000, 0, cache_read=400_000), "", (".12", "0")),
            ("openai", "gpt-5", Usage(1_000_000, 1_000_000, reasoning=900_000), "flex", (".625", "5")),
            ("openai", "gpt-5", Usage(1_000_000, 1_000_000), "batch", (".625", "5")),
            ("openai", "text-embedding-3-small", Usage(1_000_000), "", (".02", "0")),
            ("azure.ai.openai", "gpt-4o-mini", Usage(1_000_000, 1_000_000), "", (".15", ".60")),
            (
                "openai",
                "gpt-realtime",
                Usage(1_000_000, 1_000_000, audio_input=500_000, audio_output=500_000),
                "",
                ("18", "40"),
            ),
            ("openai", "gpt-realtime", Usage(1_000_000, image_input=400_000), "", ("4.4", "0")),
            (
                "gcp.gemini",
                "gemini-2.5-flash",
                Usage(1_000_000, audio_input=500_000, cache_read=400_000, audio_cache_read=400_000),
                "",
                (".29", "0"),
            ),
            (
                "gcp.gemini",
                "gemini-2.5-flash-image",
                Usage(1_000_000, 1_000_000, image_output=500_000),
                "",
                (".3", "16.25"),
            ),
            (
                "anthropic",
                "claude-sonnet-4-5-20250929",
                Usage(100_000, 1000, cache_read=60_000, cache_write=20_000),
                "",
                (".153", ".015"),
            ),
            (
                "anthropic",
                "claude-sonnet-4-5",
                Usage(100_000, 0, cache_write=100_000, cache_write_1h=100_000),
                "",
                (".6", "0"),
            ),
        ],
    )
    def test_knows_what_a_call_costs(
        self, catalogue: Catalogue, provider: str, model: str, usage: Usage, tier: str, expected: tuple[str, str]
    ) -> None:
        cost = catalogue.cost(provider, model, usage, tier, AT)
        assert cost is not None
        assert (cost.input, cost.output) == tuple(Decimal(amount) for amount in expected)
        assert cost.source.startswith("genai-prices ")
        assert datetime.fromisoformat(cost.source_date) <= datetime.now()

    def test_audio_has_its_own_price(self, catalogue: Catalogue) -> None:
        spoken = catalogue.cost(
            "openai", "gpt-realtime", Usage(1000, 1000, audio_input=1000, audio_output=1000), "", AT
        )
        written = catalogue.cost("openai", "gpt-realtime", Usage(1000, 1000), "", AT)
        assert spoken is not None
        assert written is not None
        assert spoken.amount > 2 * written.amount

    def test_audio_beside_cached_text_is_priced_too(self, catalogue: Catalogue) -> None:
        usage = Usage(1000, 10, cache_read=300, audio_input=200)
        assert catalogue.cost("openai", "gpt-realtime", usage, "", AT) is not None

    @pytest.mark.parametrize(
        ("provider", "model"), [("openai", "gpt-4o-mini-of-ours"), ("nobody", "gpt-4o"), ("", "gpt-4o"), ("openai", "")]
    )
    def test_guesses_nothing(self, catalogue: Catalogue, provider: str, model: str) -> None:
        assert catalogue.cost(provider, model, Usage(10, 10), "", AT) is None
        assert catalogue.cost(provider, model, Usage(10, 10), "", AT) is None

    @pytest.mark.parametrize("tier", ["a tier of tomorrow", "batch"])
    def test_guesses_no_price_of_a_tier(self, catalogue: Catalogue, tier: str) -> None:
        assert catalogue.cost("openai", "text-embedding-3-small", Usage(10), tier, AT) is None
        assert catalogue.cost("openai", "text-embedding-3-small", Usage(10), "default", AT) is not None
