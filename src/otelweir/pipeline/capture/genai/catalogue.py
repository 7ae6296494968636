"""The prices of genai-prices: the snapshot that is installed, without a network, loaded when first needed.

Loading it takes half a second and tens of megabytes, so it happens on a thread of its own, begun with the first call
to a model; a call takes longer than that, as a rule.
"""

from __future__ import annotations

import importlib.metadata
import threading
import warnings
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime
from typing import Any, Final

from otelweir import errors
from otelweir.pipeline.capture.genai.cost import Cost
from otelweir.pipeline.capture.genai.usage import Usage

_WAIT_S: Final = 5.0
_KNOWN: Final = 4096

_USUAL: Final = frozenset({"", "auto", "default", "standard", "on_demand"})
"""Service tiers that cost what the model costs."""

PROVIDERS: Final[Mapping[str, str]] = {
    "azure.ai.openai": "azure",
    "azure.ai.inference": "azure",
    "az.ai.openai": "azure",
    "az.ai.inference": "azure",
    "aws.bedrock": "aws",
    "gcp.gemini": "google",
    "gcp.vertex_ai": "google",
    "gcp.gen_ai": "google",
    "gemini": "google",
    "vertex_ai": "google",
    "mistral_ai": "mistral",
    "x_ai": "x-ai",
    "xai": "x-ai",
}
"""By the convention's name of a provider, the catalogue's, where they differ."""


class Catalogue:
    """What models cost, as genai-prices knows it."""

    def __init__(self) -> None:
        self._anew()

    def _anew(self) -> None:
        self._begun = False
        self._patient = True
        self._ready = threading.Event()
        self._snapshot: Any = None
        self._usage: Any = None
        self._source = ""
        self._date = ""
        self._unknown: set[tuple[str, str]] = set()

    def __repr__(self) -> str:
        return f"<Catalogue {self._source or ('loading' if self._begun else 'not loaded')}>"

    @property
    def usable(self) -> bool:
        """Whether it is loaded, and could be."""
        return self._snapshot is not None

    def begin(self) -> None:
        """Start loading, if nobody has."""
        if not self._begun:
            self._begun = True
            threading.Thread(target=self._load, name="weir-prices", daemon=True).start()

    def after_fork(self) -> None:
        """In the child: the thread that was loading does not exist there."""
        if not self._ready.is_set():
            self._anew()

    def cost(self, provider: str, model: str, usage: Usage, tier: str, at: datetime) -> Cost | None:
        """What a call cost.

        Args:
            provider: As in `gen_ai.provider.name`.
            model: As the provider names it.
            usage: The tokens.
            tier: The service tier; empty for the usual one.
            at: When the call was made.

        Returns:
            None where the provider, the model or the price is not known, or that of the tier; nothing is guessed.
        """
        self.begin()
        if not self._ready.is_set() and self._patient:
            # Waited for once: who waits in vain has a process in which no thread starts.
            self._patient = self._ready.wait(_WAIT_S)
        if self._snapshot is None or (provider, model) in self._unknown:
            return None
        context = {"processing": "batch"} if tier == "batch" else {"service_tier": tier} if tier else {}
        try:
            _, found = self._snapshot.find_provider_model(model, None, PROVIDERS.get(provider.lower(), provider), None)
        except LookupError:
            if len(self._unknown) < _KNOWN:
                self._unknown.add((provider, model))
            return None
        if tier not in _USUAL and not any(
            variant.when.items() <= context.items() for variant in found.price_variants or ()
        ):
            return None
        for tokens in _tokens(usage):
            try:
                price = self._snapshot.calc(
                    self._usage(**tokens), model, PROVIDERS.get(provider.lower(), provider), None, at, context or None
                )
            except (ValueError, LookupError, TypeError):
                continue
            if not found.prices:
                return None
            other = price.total_price - price.input_price - price.output_price
            return Cost(price.input_price, price.output_price, other, "USD", self._source, self._date)
        return None

    def _load(self) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                from genai_prices import Usage as Tokens
                from genai_prices.data_snapshot import get_snapshot

                snapshot = get_snapshot()
            self._usage = Tokens
            self._source = f"genai-prices {importlib.metadata.version('genai-prices')}"
            today = datetime.now(UTC).date()
            self._date = max((day.isoformat() for day in _dates(snapshot) if day <= today), default="")
            self._snapshot = snapshot
        except ImportError:
            missing = errors.MissingExtra("genai-prices", "genai-prices")
            errors.warn(missing.problem, f"{missing.detail}; calls to models have no cost until then")
        except Exception as error:  # noqa: BLE001 - what another package may do while it is imported
            errors.warn(errors.NOT_LOADED, f"genai-prices: {type(error).__name__}: {error}")
        finally:
            self._ready.set()


def _tokens(usage: Usage) -> Iterator[dict[str, int]]:
    """The tokens in the words of genai-prices: what is known, then with what is missing to tell the kinds apart."""
    basic = {"input_tokens": usage.input, "output_tokens": usage.output}
    cached = {
        "cache_read_tokens": usage.cache_read,
        "cache_write_tokens": usage.cache_write,
        "cache_write_1h_tokens": usage.cache_write_1h,
        "output_reasoning_tokens": usage.reasoning,
    }
    kinds = {
        "input_audio_tokens": usage.audio_input,
        "output_audio_tokens": usage.audio_output,
        "cache_audio_read_tokens": usage.audio_cache_read,
        "input_image_tokens": usage.image_input,
        "output_image_tokens": usage.image_output,
        "cache_image_read_tokens": usage.image_cache_read,
    }
    said = {name: tokens for name, tokens in kinds.items() if tokens}
    parts = {name: tokens for name, tokens in cached.items() if tokens}
    yield {**basic, **parts, **said}
    if said and parts:
        # An intersection that the provider does not tell, such as audio from the cache, is one of nothing.
        yield {**basic, **parts, **kinds}


def _dates(snapshot: Any) -> Iterator[date]:
    """The days that the prices name: the newest says how old the snapshot is at most."""
    for provider in snapshot.providers:
        for model in provider.models:
            conditions = model.prices if isinstance(model.prices, list) else []
            for condition in [*conditions, *(model.price_variants or [])]:
                start = getattr(condition.constraint, "start_date", None)
                if isinstance(start, date):
                    yield start
