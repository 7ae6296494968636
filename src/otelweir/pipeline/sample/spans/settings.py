"""The settings of sampling traces when they end. Their beginning has OpenTelemetry's own: `OTEL_TRACES_SAMPLER`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from otelweir.variables import Form, flag, number, seconds, setting, size, text, whole

_SHARE: Final = number(least=0)


def _rate(value: object) -> float:
    rate = _SHARE.read(value)
    if rate > 1:
        raise ValueError
    return rate


def _quantile(value: object) -> float:
    quantile = _SHARE.read(value)
    if not 0.5 <= quantile < 1:
        raise ValueError
    return quantile


@dataclass(frozen=True, eq=False, repr=False)
class TraceSamplingSettings:
    """The settings of the sampling of traces."""

    trace_tail: bool = setting("WEIR_TRACE_TAIL", False, flag())
    """Whether a trace is held until its part in this process has ended, and is kept by what became of it. What is held
    is in memory: a crash loses it."""

    trace_tail_rate: float = setting("WEIR_TRACE_TAIL_RATE", 0.1, Form("a number from 0 to 1", _rate))
    """Share kept of the traces that nothing special happened in. Traces with an error are always kept."""

    trace_tail_slow: float | None = setting("WEIR_TRACE_TAIL_SLOW", None, seconds(0.001))
    """Traces that take at least so long are kept."""

    trace_tail_slow_quantile: float | None = setting(
        "WEIR_TRACE_TAIL_SLOW_QUANTILE", None, Form("a number from 0.5 to below 1, such as 0.99", _quantile)
    )
    """Traces that take longer than this share of their own route's lately are kept."""

    trace_tail_cost: float | None = setting("WEIR_TRACE_TAIL_COST", None, number(above=0))
    """Traces whose spans cost more than this together are kept."""

    trace_tail_cost_attribute: str = setting(
        "WEIR_TRACE_TAIL_COST_ATTRIBUTE", "weir.cost.amount", text("the name of an attribute")
    )
    """The attribute of a span that says what it cost, a number."""

    trace_tail_score: float | None = setting("WEIR_TRACE_TAIL_SCORE", None, number(least=-1e9))
    """Traces with an evaluation score below this are kept."""

    trace_tail_score_attribute: str = setting(
        "WEIR_TRACE_TAIL_SCORE_ATTRIBUTE", "gen_ai.evaluation.score.value", text("the name of an attribute")
    )
    """The attribute that has the score: of a span, or of its event or log record `gen_ai.evaluation.result`."""

    trace_tail_max_traces: int = setting("WEIR_TRACE_TAIL_MAX_TRACES", 2000, whole(1))
    """Traces held at once; beyond, the oldest is decided early."""

    trace_tail_max_spans: int = setting("WEIR_TRACE_TAIL_MAX_SPANS", 20_000, whole(1))
    """Spans held at once; beyond, the oldest trace is decided early."""

    trace_tail_max_bytes: int = setting("WEIR_TRACE_TAIL_MAX_BYTES", 32 * 2**20, size(2**16))
    """Memory that held spans may take, about; beyond, the oldest trace is decided early."""

    trace_tail_max_age: float = setting("WEIR_TRACE_TAIL_MAX_AGE", 60.0, seconds(0.1))
    """How long a trace is held; then it is decided by what is known so far."""
