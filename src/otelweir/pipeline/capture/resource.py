"""Where the service runs: deployment context for the resource, from the environment and a few small files.

Only what is at hand is told: variables, the service account's namespace, and what the kernel says about the
container (`/proc/self/cgroup`, `/proc/self/mountinfo`). No network, no child process, no guess that could be wrong:
an attribute whose source is missing or unusable is left out. Names are those of the semantic conventions; `SOURCES`
is the documentation of the variables, printed in docs/resource.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Final, NamedTuple, TypeAlias
from urllib.parse import urlsplit, urlunsplit

from otelweir.pipeline.capture.settings import ResourceSettings

Value: TypeAlias = "str | int | list[str]"
Read: TypeAlias = Callable[[str], "str | None"]
"""Gives the beginning of a file, or None when it cannot be read."""

LONGEST: Final = 1024
"""Characters of the longest value that is passed on. A longer one is left out: half an identifier is a wrong one."""

SOURCES: Final[Mapping[str, tuple[str, ...]]] = {
    "deployment.environment.name": (
        "DEPLOYMENT_ENVIRONMENT",
        "APP_ENV",
        "ENVIRONMENT",
        "DD_ENV",
        "SENTRY_ENVIRONMENT",
        "RAILWAY_ENVIRONMENT_NAME",
        "VERCEL_ENV",
        "CI_ENVIRONMENT_NAME",
    ),
    "service.version": (
        "SERVICE_VERSION",
        "APP_VERSION",
        "DD_VERSION",
        "SENTRY_RELEASE",
        "HEROKU_RELEASE_VERSION",
        "GAE_VERSION",
        "CI_COMMIT_TAG",
    ),
    "service.namespace": ("SERVICE_NAMESPACE",),
    "vcs.ref.head.revision": (
        "GIT_COMMIT",
        "GIT_SHA",
        "GIT_COMMIT_SHA",
        "COMMIT_SHA",
        "SOURCE_COMMIT",
        "GITHUB_SHA",
        "CI_COMMIT_SHA",
        "CIRCLE_SHA1",
        "BUILDKITE_COMMIT",
        "TRAVIS_COMMIT",
        "BITBUCKET_COMMIT",
        "BUILD_SOURCEVERSION",
        "CODEBUILD_RESOLVED_SOURCE_VERSION",
        "DRONE_COMMIT_SHA",
        "DD_GIT_COMMIT_SHA",
        "HEROKU_BUILD_COMMIT",
        "HEROKU_SLUG_COMMIT",
        "RENDER_GIT_COMMIT",
        "RAILWAY_GIT_COMMIT_SHA",
        "VERCEL_GIT_COMMIT_SHA",
    ),
    "vcs.ref.head.name": (
        "GITHUB_HEAD_REF",
        "GITHUB_REF_NAME",
        "CI_COMMIT_REF_NAME",
        "GIT_BRANCH",
        "BRANCH_NAME",
        "CIRCLE_BRANCH",
        "CIRCLE_TAG",
        "BUILDKITE_BRANCH",
        "TRAVIS_BRANCH",
        "BITBUCKET_BRANCH",
        "BUILD_SOURCEBRANCHNAME",
        "DRONE_BRANCH",
        "RENDER_GIT_BRANCH",
        "RAILWAY_GIT_BRANCH",
        "VERCEL_GIT_COMMIT_REF",
    ),
    "vcs.repository.url.full": (
        "GIT_URL",
        "CI_PROJECT_URL",
        "CIRCLE_REPOSITORY_URL",
        "BUILDKITE_REPO",
        "BITBUCKET_GIT_HTTP_ORIGIN",
        "BUILD_REPOSITORY_URI",
        "CODEBUILD_SOURCE_REPO_URL",
        "DRONE_GIT_HTTP_URL",
        "DD_GIT_REPOSITORY_URL",
    ),
    "cicd.pipeline.run.id": (
        "BUILD_ID",
        "GITHUB_RUN_ID",
        "CI_PIPELINE_ID",
        "CIRCLE_PIPELINE_ID",
        "BUILDKITE_BUILD_ID",
        "TRAVIS_BUILD_ID",
        "BITBUCKET_PIPELINE_UUID",
        "BUILD_BUILDID",
        "CODEBUILD_BUILD_ID",
        "DRONE_BUILD_NUMBER",
    ),
    "container.name": ("CONTAINER_NAME",),
    "container.image.name": ("CONTAINER_IMAGE", "CONTAINER_IMAGE_NAME", "MARATHON_APP_DOCKER_IMAGE", "FLY_IMAGE_REF"),
    "k8s.pod.name": ("K8S_POD_NAME", "KUBERNETES_POD_NAME", "OTEL_RESOURCE_ATTRIBUTES_POD_NAME"),
    "k8s.pod.uid": ("K8S_POD_UID", "KUBERNETES_POD_UID", "OTEL_RESOURCE_ATTRIBUTES_POD_UID"),
    "k8s.pod.ip": ("K8S_POD_IP", "KUBERNETES_POD_IP"),
    "k8s.namespace.name": ("K8S_NAMESPACE_NAME", "K8S_NAMESPACE", "KUBERNETES_NAMESPACE"),
    "k8s.node.name": ("K8S_NODE_NAME", "KUBERNETES_NODE_NAME", "OTEL_RESOURCE_ATTRIBUTES_NODE_NAME"),
    "k8s.container.name": ("K8S_CONTAINER_NAME", "KUBERNETES_CONTAINER_NAME"),
    "k8s.deployment.name": ("K8S_DEPLOYMENT_NAME", "KUBERNETES_DEPLOYMENT_NAME"),
    "k8s.cluster.name": ("K8S_CLUSTER_NAME", "KUBERNETES_CLUSTER_NAME"),
}
"""By attribute, the variables that may hold it; the first that does wins. Weir's own settings come before all."""

IN_A_POD: Final[Mapping[str, tuple[str, ...]]] = {
    "k8s.pod.name": ("POD_NAME", "MY_POD_NAME"),
    "k8s.pod.uid": ("POD_UID", "MY_POD_UID"),
    "k8s.pod.ip": ("POD_IP", "MY_POD_IP"),
    "k8s.namespace.name": ("POD_NAMESPACE", "MY_POD_NAMESPACE", "NAMESPACE"),
    "k8s.node.name": ("NODE_NAME", "MY_NODE_NAME"),
    "k8s.container.name": ("CONTAINER_NAME", "MY_CONTAINER_NAME"),
    "k8s.cluster.name": ("CLUSTER_NAME",),
}
"""Names in common use for the downward API. Elsewhere they mean something else (Jenkins sets NODE_NAME), so they count
only where `POD_SIGN` is set."""

POD_SIGN: Final = "KUBERNETES_SERVICE_HOST"


class Platform(NamedTuple):
    """A platform that makes itself known by variables.

    Attributes:
        sign: The variable that only this platform sets.
        unless: A variable that says it is another platform after all.
        facts: Attributes that are always the same there.
        variables: The attributes and the variable each comes from.
    """

    sign: str
    facts: Mapping[str, str]
    variables: Mapping[str, str]
    unless: str | None = None


PLATFORMS: Final = (
    Platform(
        "AWS_LAMBDA_FUNCTION_NAME",
        {"cloud.provider": "aws", "cloud.platform": "aws_lambda"},
        {
            "cloud.region": "AWS_REGION",
            "faas.name": "AWS_LAMBDA_FUNCTION_NAME",
            "faas.version": "AWS_LAMBDA_FUNCTION_VERSION",
            "faas.instance": "AWS_LAMBDA_LOG_STREAM_NAME",
            "service.name": "AWS_LAMBDA_FUNCTION_NAME",
        },
    ),
    Platform(
        "ECS_CONTAINER_METADATA_URI_V4",
        {"cloud.provider": "aws", "cloud.platform": "aws_ecs"},
        {"cloud.region": "AWS_REGION"},
    ),
    # Knative sets K_SERVICE as well, and always runs on Kubernetes.
    Platform(
        "K_SERVICE",
        {"cloud.provider": "gcp", "cloud.platform": "gcp_cloud_run"},
        {"faas.name": "K_SERVICE", "faas.version": "K_REVISION", "service.name": "K_SERVICE"},
        unless=POD_SIGN,
    ),
    Platform(
        "CLOUD_RUN_JOB",
        {"cloud.provider": "gcp", "cloud.platform": "gcp_cloud_run"},
        {
            "faas.name": "CLOUD_RUN_JOB",
            "gcp.cloud_run.job.execution": "CLOUD_RUN_EXECUTION",
            "service.name": "CLOUD_RUN_JOB",
        },
    ),
    Platform(
        "GAE_SERVICE",
        {"cloud.provider": "gcp", "cloud.platform": "gcp_app_engine"},
        {
            "cloud.account.id": "GOOGLE_CLOUD_PROJECT",
            "faas.name": "GAE_SERVICE",
            "faas.version": "GAE_VERSION",
            "faas.instance": "GAE_INSTANCE",
            "service.name": "GAE_SERVICE",
        },
    ),
    Platform(
        "FUNCTIONS_EXTENSION_VERSION",
        {"cloud.provider": "azure", "cloud.platform": "azure.functions"},
        {
            "cloud.region": "REGION_NAME",
            "azure.resource_group.name": "WEBSITE_RESOURCE_GROUP",
            "faas.name": "WEBSITE_SITE_NAME",
            "faas.instance": "WEBSITE_INSTANCE_ID",
            "service.name": "WEBSITE_SITE_NAME",
        },
    ),
    Platform(
        "WEBSITE_SITE_NAME",
        {"cloud.provider": "azure", "cloud.platform": "azure.app_service"},
        {
            "cloud.region": "REGION_NAME",
            "azure.resource_group.name": "WEBSITE_RESOURCE_GROUP",
            "deployment.environment.name": "WEBSITE_SLOT_NAME",
            "service.name": "WEBSITE_SITE_NAME",
        },
        unless="FUNCTIONS_EXTENSION_VERSION",
    ),
    Platform(
        "CONTAINER_APP_NAME",
        {"cloud.provider": "azure", "cloud.platform": "azure.container_apps"},
        {"service.name": "CONTAINER_APP_NAME", "service.version": "CONTAINER_APP_REVISION"},
    ),
    Platform(
        "HEROKU_APP_ID",
        {"cloud.provider": "heroku"},
        {
            "heroku.app.id": "HEROKU_APP_ID",
            "heroku.release.commit": "HEROKU_BUILD_COMMIT",
            "heroku.release.creation_timestamp": "HEROKU_RELEASE_CREATED_AT",
            "service.name": "HEROKU_APP_NAME",
        },
    ),
    Platform("FLY_APP_NAME", {}, {"cloud.region": "FLY_REGION", "service.name": "FLY_APP_NAME"}),
    Platform("RENDER_SERVICE_NAME", {}, {"service.name": "RENDER_SERVICE_NAME"}),
    Platform("RAILWAY_SERVICE_NAME", {}, {"service.name": "RAILWAY_SERVICE_NAME"}),
)

NAMESPACE_FILE: Final = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"
CGROUP_FILE: Final = "/proc/self/cgroup"
MOUNTINFO_FILE: Final = "/proc/self/mountinfo"


STATED: Final[Mapping[str, str]] = {
    "environment": "deployment.environment.name",
    "service_version": "service.version",
    "service_namespace": "service.namespace",
    "vcs_revision": "vcs.ref.head.revision",
    "build_id": "cicd.pipeline.run.id",
}
"""By setting, the attribute that it states."""


def stated(settings: ResourceSettings) -> dict[str, Value]:
    """The attributes that Weir's own settings state."""
    values = {attribute: getattr(settings, name) for name, attribute in STATED.items()}
    return {attribute: value for attribute, value in values.items() if value is not None}


def deployment(environ: Mapping[str, str], read: Read, settings: ResourceSettings) -> dict[str, Value]:
    """The attributes of the resource that describe the deployment.

    Args:
        environ: The environment of the process.
        read: Gives the beginning of a file, or None.
        settings: What Weir's own settings say; wins over everything found.

    Returns:
        Attributes by their name in the semantic conventions; only those that are known.
    """
    found: dict[str, Value] = {}
    # The best source comes first; what one has said, no later one changes.
    for source in (
        stated(settings),
        _from_variables(environ, SOURCES),
        _repository(environ),
        _image(environ),
        _kubernetes(environ, read),
        _platform(environ),
        _cloud_foundry(environ),
        _kernel(environ, read),
    ):
        for name, value in source.items():
            found.setdefault(name, value)
    if POD_SIGN in environ and "k8s.namespace.name" in found:
        # Source: https://opentelemetry.io/docs/specs/semconv/non-normative/k8s-attributes/
        found.setdefault("service.namespace", found["k8s.namespace.name"])
    return found


def _value(environ: Mapping[str, str], variable: str) -> str | None:
    """What a variable holds, when that is fit to be sent."""
    return _clean(environ.get(variable, ""))


def _clean(text: str) -> str | None:
    text = text.strip()
    # Control characters and the surrogates that undecodable bytes leave behind are not printable; an exporter would
    # fail on the latter. An unexpanded `$(POD_NAME)` or `${GIT_COMMIT}` is a mistake in a manifest, not a value.
    if not text or len(text) > LONGEST or not text.isprintable() or text.startswith(("$(", "${")):
        return None
    return text


def _from_variables(environ: Mapping[str, str], sources: Mapping[str, tuple[str, ...]]) -> dict[str, Value]:
    found: dict[str, Value] = {}
    for name, variables in sources.items():
        if name in ("vcs.repository.url.full", "container.image.name"):
            continue
        value = next(filter(None, (_value(environ, variable) for variable in variables)), None)
        # ENVIRONMENT and APP_ENV hold a path or a sentence in some images.
        if value and not (name == "deployment.environment.name" and not re.fullmatch(r"[\w.:/-]{1,64}", value)):
            found[name] = value
    return found


def _repository(environ: Mapping[str, str]) -> dict[str, Value]:
    candidates = [_value(environ, variable) for variable in SOURCES["vcs.repository.url.full"]]
    server, name = _value(environ, "GITHUB_SERVER_URL"), _value(environ, "GITHUB_REPOSITORY")
    if server and name:
        candidates.append(f"{server}/{name}")
    for candidate in filter(None, candidates):
        if url := repository_url(candidate):
            return {"vcs.repository.url.full": url, "vcs.repository.name": url.rpartition("/")[2]}
    return {}


_SCP: Final = re.compile(r"(?:[\w.-]+@)?([\w.-]+\.[\w-]+):(?!/)([\w./~-]+)")


def repository_url(remote: str) -> str | None:
    """The address of a repository as a browser would open it: https, without credentials, query and `.git`.

    >>> repository_url("git@example.com:shop/cart.git")
    'https://example.com/shop/cart'
    >>> repository_url("https://ci:token@example.com/shop/cart.git?x=1")
    'https://example.com/shop/cart'
    """
    if scp := _SCP.fullmatch(remote):
        remote = f"https://{scp[1]}/{scp[2]}"
    try:
        parts = urlsplit(remote)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    path = parts.path.rstrip("/").removesuffix(".git")
    if parts.scheme not in ("http", "https", "ssh", "git") or not host or not path.strip("/") or "@" in host:
        return None
    if ":" in host:
        host = f"[{host}]"
    if parts.scheme in ("ssh", "git"):
        return urlunsplit(("https", host, path, "", ""))
    return urlunsplit((parts.scheme, f"{host}:{port}" if port else host, path, "", ""))


def _image(environ: Mapping[str, str]) -> dict[str, Value]:
    references = (_value(environ, variable) for variable in SOURCES["container.image.name"])
    reference = next(filter(None, references), None)
    if reference is None or " " in reference or "://" in reference:
        return {}
    name, _, digest = reference.partition("@")
    # A colon after the last slash starts the tag; one before it, the port of the registry.
    path, slash, last = name.rpartition("/")
    last, _, tag = last.partition(":")
    if not last:
        return {}
    tag = tag or _value(environ, "CONTAINER_IMAGE_TAG") or ""
    found: dict[str, Value] = {"container.image.name": f"{path}{slash}{last}"}
    if tag:
        found["container.image.tags"] = [tag]
    if digest.startswith("sha256:"):
        found["container.image.repo_digests"] = [f"{path}{slash}{last}@{digest}"]
    return found


def _kubernetes(environ: Mapping[str, str], read: Read) -> dict[str, Value]:
    if POD_SIGN not in environ:
        return {}
    found = _from_variables(environ, IN_A_POD)
    # The kubelet makes the pod's name its host name, unless the pod shares the node's or names its own.
    host = _value(environ, "HOSTNAME")
    if host and host != found.get("k8s.node.name") and "." not in host:
        found.setdefault("k8s.pod.name", host)
    namespace = _clean((read(NAMESPACE_FILE) or "").strip())
    if namespace and re.fullmatch(r"[a-z0-9-]{1,63}", namespace):
        found.setdefault("k8s.namespace.name", namespace)
    return found


def _platform(environ: Mapping[str, str]) -> dict[str, Value]:
    found: dict[str, Value] = {}
    for platform in PLATFORMS:
        if not _value(environ, platform.sign) or (platform.unless and platform.unless in environ):
            continue
        found |= platform.facts
        for name, variable in platform.variables.items():
            if value := _value(environ, variable):
                found[name] = value
    if found.get("cloud.platform") == "aws_lambda":
        if (memory := environ.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "")).isdecimal() and len(memory) < 9:
            found["faas.max_memory"] = int(memory) * 2**20
        if group := _value(environ, "AWS_LAMBDA_LOG_GROUP_NAME"):
            found["aws.log.group.names"] = [group]
    if found.get("cloud.platform") == "aws_ecs" and (
        kind := {"AWS_ECS_FARGATE": "fargate", "AWS_ECS_EC2": "ec2"}.get(environ.get("AWS_EXECUTION_ENV", ""))
    ):
        found["aws.ecs.launchtype"] = kind
    if found.get("cloud.provider") == "azure" and (resource := _azure_site(environ)):
        found["cloud.resource_id"] = resource
    return found


def _azure_site(environ: Mapping[str, str]) -> str | None:
    # WEBSITE_OWNER_NAME is "<subscription>+<resource group>-<region>webspace".
    subscription = (_value(environ, "WEBSITE_OWNER_NAME") or "").partition("+")[0]
    group, site = _value(environ, "WEBSITE_RESOURCE_GROUP"), _value(environ, "WEBSITE_SITE_NAME")
    if not (subscription and group and site):
        return None
    return f"/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.Web/sites/{site}"


_CLOUD_FOUNDRY: Final = {
    "cloudfoundry.app.id": "application_id",
    "cloudfoundry.app.name": "application_name",
    "cloudfoundry.org.id": "organization_id",
    "cloudfoundry.org.name": "organization_name",
    "cloudfoundry.space.id": "space_id",
    "cloudfoundry.space.name": "space_name",
    "cloudfoundry.process.id": "process_id",
    "cloudfoundry.process.type": "process_type",
    "service.name": "application_name",
}


def _cloud_foundry(environ: Mapping[str, str]) -> dict[str, Value]:
    application = environ.get("VCAP_APPLICATION", "")
    if not application or len(application) > 64 * LONGEST:
        return {}
    try:
        told = json.loads(application)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(told, dict):
        return {}
    found: dict[str, Value] = {}
    for name, key in _CLOUD_FOUNDRY.items():
        if isinstance(value := told.get(key), str) and (value := _clean(value)):
            found[name] = value
    if found and (index := _value(environ, "CF_INSTANCE_INDEX")):
        found["cloudfoundry.app.instance.id"] = index
    return found


# The end of a cgroup's path: `…/<id>`, `…/docker-<id>.scope`, `…/cri-containerd-<id>.scope`; ECS on Fargate
# names its containers `<32 digits>-<number>`.
_CGROUP_ID: Final = re.compile(r"[:/](?:[a-z][a-z-]{0,30}-)?([0-9a-f]{64}|[0-9a-f]{32}-\d{1,12})(?:\.scope)?$")
_CGROUP_POD: Final = re.compile(
    r"/(?:kubepods[a-z-]*-)?pod([0-9a-f]{8}(?:[_-]?[0-9a-f]{4}){3}[_-]?[0-9a-f]{12})(?:\.slice)?(?:/|$)"
)
_CGROUP_TASK: Final = re.compile(r"/ecs/(?:[\w-]{1,255}/)?([0-9a-f]{32})/")
_MOUNT_ID: Final = re.compile(r"/(?:overlay-)?containers/([0-9a-f]{64})/(?:userdata/)?(?:hostname|hosts|resolv\.conf) ")
_MOUNT_POD: Final = re.compile(
    r"/pods/([0-9a-f]{8}(?:-?[0-9a-f]{4}){3}-?[0-9a-f]{12})/(?:etc-hosts |containers/([a-z0-9-]{1,63})/)"
)


def _kernel(environ: Mapping[str, str], read: Read) -> dict[str, Value]:
    """What the kernel says about the container: ids in the paths of control groups and of mounts."""
    found: dict[str, Value] = {}
    for name, value in _cgroup(read(CGROUP_FILE) or ""):
        found.setdefault(name, value)
    in_a_pod = POD_SIGN in environ or "k8s.pod.uid" in found
    for name, value in _mounts(read(MOUNTINFO_FILE) or "", in_a_pod):
        found.setdefault(name, value)
    return found


def _cgroup(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        if match := _CGROUP_ID.search(line):
            yield "container.id", match[1]
        if match := _CGROUP_POD.search(line):
            yield "k8s.pod.uid", match[1].replace("_", "-")
        if match := _CGROUP_TASK.search(line):
            yield "aws.ecs.task.id", match[1]


def _mounts(text: str, in_a_pod: bool) -> Iterator[tuple[str, str]]:
    lines = text.splitlines()
    for match in filter(None, map(_MOUNT_POD.search, lines)):
        in_a_pod = True
        yield "k8s.pod.uid", match[1]
        if match[2]:
            yield "k8s.container.name", match[2]
    if in_a_pod:
        # The files mounted over /etc belong to the pod's pause container, not to this one.
        return
    for match in filter(None, map(_MOUNT_ID.search, lines)):
        yield "container.id", match[1]
