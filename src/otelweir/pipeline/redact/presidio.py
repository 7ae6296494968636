"""Presidio as a detector: names of persons and places, which no pattern finds. Slow; loaded with the first text."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Iterable
from typing import Any, Final

from otelweir.errors import MissingExtra

ENTITIES: Final = ("PERSON", "LOCATION", "NRP", "MEDICAL_LICENSE", "US_PASSPORT", "US_DRIVER_LICENSE", "UK_NHS")
"""What is asked for: what the rules do not find themselves."""

LEAST: Final = 0.5
"""The lowest score of a finding that counts."""

MAX_TEXT: Final = 20_000
"""Characters of a text that are analysed; the rules see all of it."""


class PresidioDetector:
    """Finds what Presidio's analyser finds.

    Raises:
        MissingExtra: presidio-analyzer is not installed.
    """

    def __init__(self, analyzer: Any = None) -> None:
        """
        Args:
            analyzer: An `AnalyzerEngine` of one's own; None for the default one with its English model.
        """
        self._analyzer = analyzer
        self._lock = threading.Lock()
        if analyzer is None:
            self._engine = _engine()

    def __call__(self, text: str) -> Iterable[tuple[int, int, str]]:
        with self._lock:
            if self._analyzer is None:
                self._analyzer = self._engine()
        if not any(map(str.isalpha, text)):
            return []
        given = self._analyzer.analyze(text=text[:MAX_TEXT], language="en", entities=list(ENTITIES))
        return [(one.start, one.end, one.entity_type.lower()) for one in given if one.score >= LEAST]


def _engine() -> Any:
    try:
        return importlib.import_module("presidio_analyzer").AnalyzerEngine
    except ImportError:
        raise MissingExtra("presidio", "presidio-analyzer") from None
