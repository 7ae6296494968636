"""What all tests share."""

from __future__ import annotations

from collections.abc import Iterator

import hypothesis
import pytest

from otelweir import errors

# Machines that run tests are often busy: a slow example is no failure.
hypothesis.settings.register_profile("weir", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("weir")


@pytest.fixture(autouse=True)
def _every_warning_anew() -> Iterator[None]:
    """Warnings are given once in a process; each test is to see its own."""
    errors.forget_warnings()
    yield
    errors.forget_warnings()
