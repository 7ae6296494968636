"""A rate, its threshold and its weight say the same."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelweir.pipeline.sample.logs.threshold import DIGITS, rate_of, threshold_of


@pytest.mark.parametrize(
    ("rate", "threshold"),
    [(1.0, "0"), (0.5, "8"), (0.25, "c"), (0.1, "e666"), (0.2, "cccd"), (0.01, "fd70a"), (1 / 3, "aaab")],
)
def test_thresholds_are_those_of_the_collector(rate: float, threshold: str) -> None:
    """Four significant digits, trailing zeros removed."""
    assert threshold_of(rate) == threshold


@given(st.floats(1e-9, 1.0))
def test_a_threshold_gives_its_rate_back(rate: float) -> None:
    """Whoever extrapolates from the threshold gets the same count as from the weight, to four digits."""
    threshold = threshold_of(rate)
    assert 1 <= len(threshold) <= DIGITS
    assert threshold == "0" or not threshold.endswith("0")
    assert rate_of(threshold) == pytest.approx(rate, rel=2e-4)
