"""The settings of calls to language models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from otelweir.variables import flag, number, one_of, seconds, setting, size, text

Vendor = Literal["opentelemetry", "openinference", "openllmetry"]


@dataclass(frozen=True, eq=False, repr=False)
class GenAISettings:
    """The settings of what is said of language models."""

    genai: bool = setting("WEIR_GENAI", True, flag())
    """Whether spans of calls to language models get their cost, and local roots the sum over their trace."""

    genai_vendor: Vendor = setting(
        "WEIR_GENAI_VENDOR", "opentelemetry", one_of("opentelemetry", "openinference", "openllmetry")
    )
    """Whose instrumentation is used under the launcher where several are installed for one library."""

    genai_content_max_bytes: int = setting("WEIR_GENAI_CONTENT_MAX_BYTES", 256 * 2**10, size(256))
    """What the messages in one attribute of a span may take; longer texts in them are cut, and say so."""

    genai_mlflow_cost: bool = setting("WEIR_GENAI_MLFLOW_COST", False, flag())
    """Whether the cost is written as `mlflow.llm.cost`, too, which MLflow shows."""

    prices_file: str | None = setting("WEIR_PRICES_FILE", None, text("the path of a YAML or JSON file"))
    """Your own prices; they win over those of genai-prices."""

    cost_budget: float | None = setting("WEIR_COST_BUDGET", None, number(above=0))
    """What the calls of this process may cost in one window before a warning, in the currency of the prices (USD)."""

    cost_budget_window: float = setting("WEIR_COST_BUDGET_WINDOW", 86400.0, seconds(1))
    """How long a window of the budget lasts; it begins with the first call that costs something."""
