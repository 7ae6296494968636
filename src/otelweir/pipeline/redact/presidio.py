"""Presidio as a detector: names of persons and places, which no pattern finds. Slow; loaded with the first text."""

from __future__ import annotations

import importlib
import importlib.util
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


MODEL: Final = "en_core_web_lg"
"""The language model of Presidio's default analyser; where it is missing, the analyser tries to download it."""


class PresidioDetector:
    """Finds what Presidio's analyser finds.

    Raises:
        MissingExtra: presidio-analyzer is not installed, or its language model: nothing is downloaded while a service
            runs.
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
                # Once: a second try on the next text would take as long, and fail again.
                engine, self._engine = self._engine, _broken
                self._analyzer = engine()
        if not any(map(str.isalpha, text)):
            return []
        given = self._analyzer.analyze(text=text[:MAX_TEXT], language="en", entities=list(ENTITIES))
        return [(one.start, one.end, one.entity_type.lower()) for one in given if one.score >= LEAST]


def _engine() -> Any:
    try:
        engine = importlib.import_module("presidio_analyzer").AnalyzerEngine
    except ImportError:
        raise MissingExtra("presidio", "presidio-analyzer") from None
    if importlib.util.find_spec(MODEL) is None:
        raise MissingExtra("presidio", f"the language model of presidio-analyzer (python -m spacy download {MODEL})")
    return engine


def _broken() -> Any:
    raise RuntimeError("Presidio's analyser did not start")
