"""What `opentelemetry-instrument` loads."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, Final

import wrapt
from opentelemetry.instrumentation.dependencies import get_dist_dependency_conflicts
from opentelemetry.instrumentation.distro import BaseDistro  # type: ignore[attr-defined] # upstream's file opts out
from opentelemetry.util._importlib_metadata import EntryPoint, entry_points

from otelweir import errors
from otelweir.distro.defaults import OTEL_DEFAULTS
from otelweir.distro.installed import normalized
from otelweir.distro.vendors import preferred
from otelweir.pipeline.capture.genai.settings import GenAISettings
from otelweir.variables import read


class WeirDistro(BaseDistro):  # type: ignore[misc]
    """Sets OpenTelemetry's defaults as Weir wants them; what the user set stays."""

    def _configure(self, **kwargs: Any) -> None:
        for name, value in OTEL_DEFAULTS.items():
            # The detectors stand in the environment only while the SDK reads them (`assemble._defaults`): a child
            # process may run on other packages, and lack ours.
            if name != "OTEL_EXPERIMENTAL_RESOURCE_DETECTORS" and not os.environ.get(name):
                os.environ[name] = value

    def load_instrumentor(self, entry_point: EntryPoint, **kwargs: Any) -> None:
        """Instrument a library.

        Of `opentelemetry-instrumentation-logging` only the correlation remains, where it is asked for: its handler
        would send what our bridge sends, and its record factory would slow down every record.

        Django is instrumented when it is set up, unless its settings are named in the environment: upstream's
        instrumentor configures empty settings where it finds none, and `manage.py`, or a project that configures
        itself, names them later.

        A client of a language model is instrumented when the application imports it: upstream's instrumentors import
        it themselves, which takes seconds.

        Where several packages instrument the same library, one does.

        What a completion hook gets of calls to models passes through redaction first.
        """
        if (other := _rival(entry_point)) is not None:
            if not os.environ.get("WEIR_GENAI_VENDOR"):
                errors.warn(
                    errors.TWO_INSTRUMENTATIONS,
                    f"{entry_point.name} is instrumented by {other.module}, and not by {entry_point.module}",
                )
            return
        if entry_point.name == "django" and not os.environ.get("DJANGO_SETTINGS_MODULE"):
            _after_django_setup(lambda: super(WeirDistro, self).load_instrumentor(entry_point, **kwargs))
            return
        if entry_point.value.startswith(_WITH_HOOK) and os.environ.get("OTEL_INSTRUMENTATION_GENAI_COMPLETION_HOOK"):
            from otelweir.distro.completions import completion_hook

            kwargs["completion_hook"] = completion_hook()
        package = _INSTRUMENTED.get(entry_point.value.partition(":")[0])
        if package is not None:
            _once_imported(package, lambda: super(WeirDistro, self).load_instrumentor(entry_point, **kwargs))
            return
        if entry_point.name == "logging":
            if os.environ.get("OTEL_PYTHON_LOG_CORRELATION", "").strip().lower() != "true":
                return
            kwargs["enable_log_auto_instrumentation"] = False
        super().load_instrumentor(entry_point, **kwargs)


_INSTRUMENTED: Final[Mapping[str, str]] = {
    "opentelemetry.instrumentation.fastapi": "fastapi",
    "opentelemetry.instrumentation.flask": "flask",
    "opentelemetry.instrumentation.genai.anthropic": "anthropic",
    "opentelemetry.instrumentation.genai.langchain": "langchain_core",
    "opentelemetry.instrumentation.genai.openai": "openai",
}
"""Instrumentations, and the package whose import tells that one is needed."""

_WITH_HOOK: Final = ("opentelemetry.instrumentation.genai.", "opentelemetry.instrumentation.google_genai")
"""Instrumentations that give the content of calls to a completion hook."""


def _once_imported(package: str, instrument: Callable[[], None]) -> None:
    @wrapt.when_imported(package)
    def _(_module: Any) -> None:
        _guarded(package, instrument)


def _guarded(what: str, instrument: Callable[[], None]) -> None:
    try:
        instrument()
    except Exception as error:  # noqa: BLE001 - the host goes on without spans
        errors.warn(errors.NOT_LOADED, f"{what} cannot be instrumented: {error}", exc_info=error)


def _rival(entry_point: EntryPoint) -> EntryPoint | None:
    """The entry point of another package that is to instrument the same library, and can; None if there is none."""
    usable = {
        normalized(one.dist.metadata["Name"]): one
        for one in entry_points(group="opentelemetry_instrumentor", name=entry_point.name)
        if one.dist is not None and (one.value == entry_point.value or get_dist_dependency_conflicts(one.dist) is None)
    }
    if len(usable) < 2:
        return None
    settings, _ = read(GenAISettings, os.environ)
    chosen = usable[preferred(usable, settings.genai_vendor)]
    return None if chosen.value == entry_point.value else chosen


def _after_django_setup(instrument: Callable[[], None]) -> None:
    """Instrument as soon as `django.setup()` has run, whoever calls it; nothing happens in a program without Django."""
    done = False

    def set_up(wrapped: Callable[..., None], _: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        nonlocal done
        wrapped(*args, **kwargs)
        if not done:
            done = True
            _guarded("Django", instrument)

    @wrapt.when_imported("django")
    def _(django: Any) -> None:
        django.setup = wrapt.FunctionWrapper(django.setup, set_up)


class WeirConfigurator:
    """Assembles the pipeline when the launcher asks for it."""

    def configure(self, **kwargs: Any) -> None:
        """Configure the SDK.

        Args:
            kwargs: What the launcher passes: `auto_instrumentation_version`.
        """
        from otelweir.distro.configuration import launch

        attributes: dict[str, Any] = {}
        if version := kwargs.get("auto_instrumentation_version"):
            attributes["telemetry.auto.version"] = version
        launch(attributes)


def warn_of_other_distributions(environ: Mapping[str, str] | None = None) -> None:
    """Say which distributions and configurators are installed, if there are several and none was chosen.

    The launcher takes the first that it finds, without a word.
    """
    environ = os.environ if environ is None else environ
    for group, variable in (
        ("opentelemetry_distro", "OTEL_PYTHON_DISTRO"),
        ("opentelemetry_configurator", "OTEL_PYTHON_CONFIGURATOR"),
    ):
        found = {entry.name: entry.value for entry in entry_points(group=group)}
        if len(found) > 1 and not environ.get(variable):
            listed = " and ".join(f"{name} ({value})" for name, value in sorted(found.items()))
            errors.warn(
                errors.TWO_DISTRIBUTIONS,
                f"{listed} are installed, and the first one found is used; {variable}=weir chooses Weir",
            )
