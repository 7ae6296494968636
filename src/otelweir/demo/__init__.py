"""The demo: a small shop under Weir, customers who flood it, and what it logged compared with what arrived."""

from __future__ import annotations

from otelweir.demo.comparison import Comparison, Received, Truth, compare
from otelweir.demo.run import DemoError, Interrupted, Moment, Report, run_demo

__all__ = ["Comparison", "DemoError", "Interrupted", "Moment", "Received", "Report", "Truth", "compare", "run_demo"]
