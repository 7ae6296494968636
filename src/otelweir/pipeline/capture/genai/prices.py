"""A file of your own prices.

The format, as YAML or JSON::

    currency: USD            # ISO 4217; USD if left out
    usd_rate: 0.92           # beside another currency: what a dollar of genai-prices is in it
    date: 2026-11-01         # of when the prices are; the file's own date if left out
    models:
      - provider: openai     # as in gen_ai.provider.name; any provider if left out
        model: gpt-4o-mini*  # `*` and `?` stand for anything
        input: 0.15          # per million tokens
        output: 0.60
        cache_read: 0.075
        tier: batch          # only for calls that were served so; for all if left out

The other prices are the fields of `cost.Price`. The first entry that fits a call is its price. One process counts in
one currency: beside a file in another currency than USD, the prices of genai-prices are converted by the file's
`usd_rate`, and not used where it has none.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Final

from otelweir import errors
from otelweir.pipeline.capture.genai.cost import Cost, Price, split
from otelweir.pipeline.capture.genai.usage import Usage

MAX_BYTES: Final = 2**20
_PRICES: Final = tuple(field.name for field in dataclasses.fields(Price))


@dataclass(frozen=True, slots=True)
class Entry:
    """The price of the models whose names fit."""

    provider: str
    model: str
    price: Price
    tier: str = ""

    def fits(self, provider: str, model: str, tier: str = "") -> bool:
        return (
            (not self.provider or self.provider == provider.lower())
            and (not self.tier or self.tier == tier.lower())
            and fnmatch.fnmatchcase(model.lower(), self.model)
        )


@dataclass(frozen=True, slots=True)
class PriceList:
    """Own prices.

    Attributes:
        entries: The first that fits counts.
        currency: An ISO 4217 code.
        source: The name of the file.
        source_date: Of when the prices are, `YYYY-MM-DD`.
        usd_rate: What a dollar is in the currency; None where the file does not say.
    """

    entries: tuple[Entry, ...] = ()
    currency: str = "USD"
    source: str = ""
    source_date: str = ""
    usd_rate: Decimal | None = None

    def converted(self, cost: Cost) -> Cost:
        """What something that costs dollars costs in the file's currency; its source says at which rate."""
        if self.usd_rate is None:
            return cost
        rate = self.usd_rate
        source = f"{cost.source} at {rate:f} {self.currency}/USD"
        return Cost(cost.input * rate, cost.output * rate, cost.other * rate, self.currency, source, cost.source_date)

    def cost(self, provider: str, model: str, usage: Usage, tier: str = "") -> Cost | None:
        """What a call costs; None where no entry fits."""
        for entry in self.entries:
            if entry.fits(provider, model, tier):
                into, out = split(usage, entry.price)
                return Cost(into, out, entry.price.request, self.currency, self.source, self.source_date)
        return None


def load(path: str) -> PriceList:
    """Read a file of prices.

    Raises:
        WeirError: It cannot be read, or says something that is no price; the message names the place.
        MissingExtra: It is YAML, and PyYAML is not installed.
    """
    try:
        file = Path(path)
        with file.open("rb") as opened:
            data = opened.read(MAX_BYTES + 1)
        written = datetime.fromtimestamp(file.stat().st_mtime, UTC).date()
    except (OSError, ValueError) as error:
        raise errors.WeirError(errors.PRICES_UNUSABLE, f"{path}: {getattr(error, 'strerror', None) or error}") from None
    if len(data) > MAX_BYTES:
        raise errors.WeirError(errors.PRICES_UNUSABLE, f"{path}: it is larger than {MAX_BYTES} bytes")
    try:
        return parse(_document(data, json_only=path.lower().endswith(".json")), file.name, written.isoformat())
    except ValueError as error:
        raise errors.WeirError(errors.PRICES_UNUSABLE, f"{path}: {error}") from None


def parse(document: object, source: str, written: str) -> PriceList:
    """Prices as a document says them.

    Args:
        document: The content of the file.
        source: What to call the file.
        written: The date of the file, `YYYY-MM-DD`.

    Raises:
        ValueError: With the place and what is wrong there.
    """
    top = _mapping(document, "the file")
    _only(top, {"currency", "date", "models", "usd_rate"}, "the file")
    currency = top.get("currency", "USD")
    if not isinstance(currency, str) or not re.fullmatch(r"[A-Z]{3}", currency):
        raise ValueError(f"currency: {currency!r} is not a code of three capitals such as USD")
    rate = _rate(top.get("usd_rate"), currency)
    models = top.get("models")
    if not isinstance(models, list) or not models:
        raise ValueError("models: a list with at least one entry is due")
    entries = tuple(_entry(entry, f"models[{at}]") for at, entry in enumerate(models))
    return PriceList(entries, currency, source, _date(top.get("date"), written), rate)


def _document(data: bytes, *, json_only: bool) -> object:
    if json_only:
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"it is not JSON: {error}") from None
    try:
        import yaml
    except ImportError:
        raise errors.MissingExtra("yaml", "PyYAML") from None
    try:
        return yaml.safe_load(data)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"it is not YAML: {' '.join(str(error).split())}") from None


def _entry(value: object, where: str) -> Entry:
    entry = _mapping(value, where)
    _only(entry, {"provider", "model", "tier", *_PRICES}, where)
    names: dict[str, str] = {}
    for name in ("provider", "model", "tier"):
        given = entry.get(name, "")
        if not isinstance(given, str):
            raise ValueError(f"{where}.{name}: {given!r} is not text")
        names[name] = given.strip().lower()
    if not names["model"]:
        raise ValueError(f"{where}.model: a name is due")
    prices = {name: _price(entry[name], f"{where}.{name}") for name in _PRICES if name in entry}
    if not prices:
        raise ValueError(f"{where}: at least one price is due, such as input")
    return Entry(names["provider"], names["model"], Price(**prices), names["tier"])


def _rate(value: object, currency: str) -> Decimal | None:
    if value is None:
        return None
    if currency == "USD":
        raise ValueError("usd_rate: the currency is USD, so there is nothing to convert")
    rate = _price(value, "usd_rate")
    if not rate:
        raise ValueError(f"usd_rate: {value!r} is not a number above 0")
    return rate


def _price(value: object, where: str) -> Decimal:
    if isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            price = Decimal(str(value).strip())
        except InvalidOperation:
            price = Decimal(-1)
        if price.is_finite() and 0 <= price < 10**9:
            return price
    raise ValueError(f"{where}: {value!r} is not a number, 0 or more")


def _date(value: object, written: str) -> str:
    match value:
        case None:
            return written
        case datetime():
            return value.date().isoformat()
        case date():
            return value.isoformat()
        case str():
            try:
                return date.fromisoformat(value.strip()).isoformat()
            except ValueError:
                pass
    raise ValueError(f"date: {value!r} is not a date such as 2026-11-01")


def _mapping(value: object, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ValueError(f"{where}: names with values are due, not {type(value).__name__}")
    return value


def _only(given: Mapping[str, Any], allowed: set[str], where: str) -> None:
    for name in given:
        if name not in allowed:
            raise ValueError(f"{where}: {name!r} is none of {', '.join(sorted(allowed))}")
