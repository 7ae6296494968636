"""The settings of capture."""

from __future__ import annotations

from dataclasses import dataclass

from otelweir.variables import flag, setting, text


@dataclass(frozen=True)
class CaptureSettings:
    log_capture: bool = setting("WEIR_LOG_CAPTURE", True, flag())
    """Whether records of Python's `logging` enter the pipeline."""

    log_code_attributes: bool = setting("WEIR_LOG_CODE_ATTRIBUTES", True, flag())
    """Whether log records carry `code.file.path`, `code.function.name` and `code.line.number`."""


@dataclass(frozen=True)
class ResourceSettings:
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
