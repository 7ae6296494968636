"""The settings of capture."""

from __future__ import annotations

from dataclasses import dataclass

from otelweir.variables import flag, setting, size, text


@dataclass(frozen=True, eq=False, repr=False)
class CaptureSettings:
    """The settings of what is captured."""

    log_capture: bool = setting("WEIR_LOG_CAPTURE", True, flag())
    """Whether records of Python's `logging` enter the pipeline."""

    log_code_attributes: bool = setting("WEIR_LOG_CODE_ATTRIBUTES", True, flag())
    """Whether log records carry `code.file.path`, `code.function.name` and `code.line.number`."""


@dataclass(frozen=True, eq=False, repr=False)
class TrackSettings:
    """The settings of tracked functions."""

    track_content: bool = setting("WEIR_TRACK_CONTENT", True, flag())
    """Whether input and output of tracked functions and spans are captured."""

    track_max_bytes: int = setting("WEIR_TRACK_MAX_BYTES", 64 * 1024, size(256))
    """Bytes that the JSON of one input or output may have; the rest is cut, and `weir.truncated` says where."""

    context_threads: bool = setting("WEIR_CONTEXT_THREADS", True, flag())
    """Whether the current span and `otelweir.context` reach threads that are started, and work that is given to thread
    pools. Daemon threads are left out: they outlive what started them."""

    context_baggage: bool = setting("WEIR_CONTEXT_BAGGAGE", False, flag())
    """Whether `otelweir.context` reaches other services, by OpenTelemetry's baggage, and theirs reaches this one.
    Whoever is called hears session, user, tags and metadata; whoever calls can set them."""


@dataclass(frozen=True, eq=False, repr=False)
class ResourceSettings:
    """The settings of the resource."""

    environment: str | None = setting("WEIR_ENVIRONMENT", None, text("a name such as production"))
    """`deployment.environment.name` of the resource."""

    service_version: str | None = setting("WEIR_SERVICE_VERSION", None, text("a version"))
    """`service.version` of the resource."""

    service_namespace: str | None = setting("WEIR_SERVICE_NAMESPACE", None, text("a name"))
    """`service.namespace` of the resource."""

    vcs_revision: str | None = setting("WEIR_VCS_REVISION", None, text("a revision, such as a commit hash"))
    """`vcs.ref.head.revision` of the resource."""

    build_id: str | None = setting("WEIR_BUILD_ID", None, text("an identifier of the build"))
    """`cicd.pipeline.run.id` of the resource."""
