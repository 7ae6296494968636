"""What a call costs, from its tokens and a price."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from otelweir.pipeline.capture.genai.usage import Usage

_MILLION: Final = Decimal(1_000_000)


@dataclass(frozen=True, slots=True)
class Cost:
    """What a call costs.

    Attributes:
        input: For what went in.
        output: For what came out.
        other: For the call itself.
        currency: An ISO 4217 code.
        source: Where the price comes from.
        source_date: Of when it is, `YYYY-MM-DD`; empty where nobody knows.
    """

    input: Decimal
    output: Decimal
    other: Decimal
    currency: str
    source: str
    source_date: str

    @property
    def amount(self) -> Decimal:
        return self.input + self.output + self.other


@dataclass(frozen=True, slots=True)
class Price:
    """The prices of a model, per million tokens. None: a part of that kind costs what the whole costs that it is of.

    Attributes:
        input: Text that goes in.
        output: Text that comes out.
        cache_read: Input from the cache; None for the price of input.
        cache_write: Input put into the cache; None for the price of input.
        cache_write_1h: The same, to stay for an hour; None for `cache_write`.
        reasoning: What is thought; None for the price of output.
        audio_input: None for the price of input.
        audio_output: None for the price of output.
        audio_cache_read: None for the price of audio input if audio has one, else for `cache_read`.
        image_input: None for the price of input.
        image_output: None for the price of output.
        image_cache_read: As `audio_cache_read`.
        request: A call, whatever its tokens; not per million.
    """

    input: Decimal = Decimal(0)
    output: Decimal = Decimal(0)
    cache_read: Decimal | None = None
    cache_write: Decimal | None = None
    cache_write_1h: Decimal | None = None
    reasoning: Decimal | None = None
    audio_input: Decimal | None = None
    audio_output: Decimal | None = None
    audio_cache_read: Decimal | None = None
    image_input: Decimal | None = None
    image_output: Decimal | None = None
    image_cache_read: Decimal | None = None
    request: Decimal = Decimal(0)


def split(usage: Usage, price: Price) -> tuple[Decimal, Decimal]:
    """What the input and the output of a call cost. Every token is counted once."""
    return _sum(_input(usage, price)), _sum(_output(usage, price))


def _sum(parts: Iterator[tuple[int, Decimal]]) -> Decimal:
    return sum((tokens * price for tokens, price in parts), Decimal(0)) / _MILLION


def _first(*prices: Decimal | None) -> Decimal:
    return next(price for price in prices if price is not None)


def _input(usage: Usage, price: Price) -> Iterator[tuple[int, Decimal]]:
    text = usage.input - usage.cache_read - usage.cache_write
    cached_text = usage.cache_read - usage.audio_cache_read - usage.image_cache_read
    cached = _first(price.cache_read, price.input)
    for tokens, from_cache, plain, from_cache_price in (
        (usage.audio_input, usage.audio_cache_read, price.audio_input, price.audio_cache_read),
        (usage.image_input, usage.image_cache_read, price.image_input, price.image_cache_read),
    ):
        fresh = min(tokens - from_cache, text)
        text -= fresh
        yield fresh, _first(plain, price.input)
        yield from_cache, _first(from_cache_price, plain, cached)
    yield text, price.input
    yield cached_text, cached
    write = _first(price.cache_write, price.input)
    yield usage.cache_write - usage.cache_write_1h, write
    yield usage.cache_write_1h, _first(price.cache_write_1h, write)


def _output(usage: Usage, price: Price) -> Iterator[tuple[int, Decimal]]:
    text = usage.output - usage.audio_output - usage.image_output
    reasoning = min(usage.reasoning, text)
    yield text - reasoning, price.output
    yield reasoning, _first(price.reasoning, price.output)
    yield usage.audio_output, _first(price.audio_output, price.output)
    yield usage.image_output, _first(price.image_output, price.output)
