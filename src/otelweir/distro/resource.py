"""The resource detector `weir`: deployment context for the SDK.

It stands here and not in `pipeline/capture/`, because the SDK makes it without arguments: it has to load the settings
itself, which a stage may not.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from opentelemetry.sdk.resources import Resource, ResourceDetector

from otelweir import errors, settings
from otelweir.pipeline.capture.resource import deployment
from otelweir.pipeline.capture.settings import ResourceSettings

MOST_BYTES: Final = 256 * 1024
"""How much of a file is read. A table of mounts rarely has a tenth of it."""


class WeirResourceDetector(ResourceDetector):
    """Detects the deployment context from the environment.

    What it says does not change with a fork, so `is_process_dependent` stays False.

    Args:
        raise_on_error: Raise instead of logging, as the SDK defines it.
        settings: The settings, when they are not to be read from the environment.
    """

    def __init__(self, raise_on_error: bool = False, *, settings: ResourceSettings | None = None) -> None:
        super().__init__(raise_on_error)
        self._settings = settings

    def detect(self) -> Resource:
        """The resource; an empty one when something fails."""
        try:
            stated = self._settings or settings.load(os.environ).settings
            return Resource(deployment(os.environ, read, stated))
        except Exception:  # A bug of ours must not stop the application.
            if self.raise_on_error:
                raise
            errors.logger.warning("Weir failed to detect the deployment; the resource lacks it.", exc_info=True)
            return Resource.get_empty()


def read(path: str) -> str | None:
    """The beginning of a file, or None when it cannot be read."""
    try:
        with Path(path).open("rb") as file:
            return file.read(MOST_BYTES).decode("utf-8", "replace")
    except OSError:
        return None
