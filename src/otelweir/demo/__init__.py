"""The demo: a small shop under Weir, customers who flood it, and what it logged held against what arrived."""

from typing import TYPE_CHECKING

from otelweir.faces import lazily

if TYPE_CHECKING:
    from otelweir.demo.comparison import Comparison, Received, Truth, compare
    from otelweir.demo.launch import DemoError, Interrupted
    from otelweir.demo.run import Moment, Report, run_demo

__all__ = ["Comparison", "DemoError", "Interrupted", "Moment", "Received", "Report", "Truth", "compare", "run_demo"]

# The shop runs this file too, and needs nothing of what watches it.
_HOMES = {"DemoError": "launch", "Interrupted": "launch", "Moment": "run", "Report": "run", "run_demo": "run"}
__getattr__, __dir__ = lazily(__name__, {name: _HOMES.get(name, "comparison") for name in __all__})
