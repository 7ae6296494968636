"""What Weir knows about its own delivery."""

from typing import TYPE_CHECKING

from otelweir.faces import lazily

if TYPE_CHECKING:
    from otelweir.selfmetrics.debuglog import DebugLog
    from otelweir.selfmetrics.exchanges import Exchanges, Summary
    from otelweir.selfmetrics.flushed import Flushed
    from otelweir.selfmetrics.otel import instruments
    from otelweir.selfmetrics.status import LaneStatus, Status, read_status
    from otelweir.selfmetrics.tally import Count, Tally

__all__ = [
    "Count",
    "DebugLog",
    "Exchanges",
    "Flushed",
    "LaneStatus",
    "Status",
    "Summary",
    "Tally",
    "instruments",
    "read_status",
]

__getattr__, __dir__ = lazily(
    __name__,
    {
        "Count": "tally",
        "DebugLog": "debuglog",
        "Exchanges": "exchanges",
        "Flushed": "flushed",
        "LaneStatus": "status",
        "Status": "status",
        "Summary": "exchanges",
        "Tally": "tally",
        "instruments": "otel",
        "read_status": "status",
    },
)
