"""What Weir knows about its own delivery."""

from typing import TYPE_CHECKING

from otelweir.faces import lazily

if TYPE_CHECKING:
    from otelweir.selfmetrics.tally import Count, Tally

__all__ = ["Count", "Tally"]

__getattr__, __dir__ = lazily(__name__, dict.fromkeys(__all__, "tally"))
