"""The sections of a policy that are not the sampler's: here they meet the reader of policies."""

from __future__ import annotations

from otelweir.pipeline.redact.section import flaws
from otelweir.pipeline.sample.logs.policy import admit


def admit_sections() -> None:
    """Have policies read with the sections of all stages; to be called before one is read."""
    admit("redact", flaws)
