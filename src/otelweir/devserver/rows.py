"""What the local backend keeps, as plain rows: what a request becomes, and what the store writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeAlias, get_args

Signal: TypeAlias = Literal["logs", "traces", "metrics"]
SIGNALS: tuple[Signal, ...] = get_args(Signal)

ROLLUP_EVENT = "weir.log.pattern.rollup"

# The lowest number of each band of OpenTelemetry's severity numbers; 0 is "not said".
SEVERITIES: Mapping[int, str] = {0: "unset", 1: "trace", 5: "debug", 9: "info", 13: "warn", 17: "error", 21: "fatal"}
ERROR = 17

_BANDS = {name: band for band, name in SEVERITIES.items()} | {
    "notset": 0,
    "information": 9,
    "warning": 13,
    "err": 17,
    "critical": 21,
}


def severity_band(number: int, text: str = "") -> int:
    """The lowest severity number of the band that a number, or failing that a name, belongs to."""
    if 1 <= number <= 24:
        return (number - 1) // 4 * 4 + 1
    return _BANDS.get(text.strip().lower(), 0)


class ResourceRow(NamedTuple):
    """Who sent it. The key is a digest of the attributes, so one process is one row."""

    key: str
    service: str
    attributes: str


class LogRow(NamedTuple):
    """One log record. Ids are hexadecimal, "" where there is none; attributes are a JSON object."""

    time_ns: int
    severity: int
    severity_text: str
    body: str
    event: str
    trace_id: str
    span_id: str
    resource: str
    service: str
    scope: str
    pattern_id: str
    template: str
    weight: float
    reason: str
    is_new: bool
    attributes: str


class RollupRow(NamedTuple):
    """The exact counts of one pattern and severity over one interval of one process."""

    time_ns: int
    resource: str
    pattern_id: str
    severity: int
    template: str
    logger: str
    seen: int
    kept: int
    first_ns: int
    last_ns: int


class SpanRow(NamedTuple):
    """One span. Attributes are a JSON object; events and links are JSON lists."""

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    kind: str
    start_ns: int
    end_ns: int
    status: str
    status_message: str
    resource: str
    service: str
    scope: str
    attributes: str
    events: str
    links: str


class PointRow(NamedTuple):
    """One metric data point.

    `value` is the number of a gauge or sum and the sum of a histogram or summary; `measurements` is how many
    stand behind a histogram or summary; `detail` is a JSON object with buckets, quantiles and exemplars.
    """

    time_ns: int
    start_ns: int
    name: str
    description: str
    unit: str
    kind: str
    temporality: str
    monotonic: bool
    value: float | None
    measurements: int | None
    resource: str
    service: str
    scope: str
    attributes: str
    detail: str


@dataclass(slots=True)
class Batch:
    """What one request carried."""

    signal: Signal
    resources: dict[str, ResourceRow] = field(default_factory=dict)
    logs: list[LogRow] = field(default_factory=list)
    rollups: list[RollupRow] = field(default_factory=list)
    spans: list[SpanRow] = field(default_factory=list)
    points: list[PointRow] = field(default_factory=list)
