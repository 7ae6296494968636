"""What Weir knows about its own delivery."""

from typing import TYPE_CHECKING

from otelweir.faces import lazily

if TYPE_CHECKING:
    from otelweir.selfmetrics.exchanges import Exchanges, Summary
    from otelweir.selfmetrics.flushed import Flushed
    from otelweir.selfmetrics.tally import Count, Tally

__all__ = ["Count", "Exchanges", "Flushed", "Summary", "Tally"]

__getattr__, __dir__ = lazily(
    __name__,
    {
        "Count": "tally",
        "Exchanges": "exchanges",
        "Flushed": "flushed",
        "Summary": "exchanges",
        "Tally": "tally",
    },
)
