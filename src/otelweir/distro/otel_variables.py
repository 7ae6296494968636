"""OpenTelemetry's own variables: which are known, what they may hold, and how to show them without their secrets.

OpenTelemetry answers a bad value with a line in the log or a traceback at start-up, or silently with its default. Here
the check comes first and says what is allowed.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Final, TypeAlias
from urllib.parse import urlsplit

from otelweir import errors
from otelweir.distro.installed import Installed
from otelweir.errors import Problem

Check: TypeAlias = Callable[[str, Installed], "str | None"]
"""Takes a variable's value; gives what would be allowed, or None when the value is good."""

SIGNALS: Final = ("traces", "metrics", "logs")
PROTOCOLS: Final = ("grpc", "http/protobuf")


def _one_of(*allowed: str) -> Check:
    words = f"{', '.join(allowed[:-1])} or {allowed[-1]}"
    return lambda value, _: None if value.strip().lower() in allowed else words


def _number(least: float = 0, most: float | None = None, whole: bool = True) -> Check:
    words = f"a {'whole ' if whole else ''}number, {least:g} or more"
    if most is not None:
        words = f"a {'whole ' if whole else ''}number from {least:g} to {most:g}"

    def check(value: str, _: Installed) -> str | None:
        try:
            number = int(value) if whole else float(value)
        except ValueError:
            return words
        return None if least <= number <= (most if most is not None else float("inf")) else words

    return check


def is_url(value: str) -> bool:
    """Whether an exporter can send there."""
    try:
        parts = urlsplit(value)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _url(value: str, _: Installed) -> str | None:
    return None if is_url(value.strip()) else "a URL such as http://localhost:4318"


def _registered(group: str, *also: str, many: bool = False) -> Check:
    def check(value: str, installed: Installed) -> str | None:
        known = [*dict.fromkeys([*also, *(entry.name for entry in installed.entries(group))])]
        names = [name.strip() for name in value.split(",")] if many else [value.strip()]
        wrong = [name for name in names if name and name not in known]
        if wrong:
            return f"{'a list of ' if many else 'one of '}{', '.join(known)}{_nearest(wrong[0], known)}"
        for name in names:
            if (entry := installed.entry(group, name)) and (why := _fails(entry.load)):
                return f"a component that can be loaded; {name} of {entry.package} fails with {why}"
        return None

    return check


def _fails(load: Callable[[], object]) -> str | None:
    try:
        load()
    except Exception as error:  # noqa: BLE001 - whatever an import raises is the finding
        return f"{type(error).__name__}: {error}"
    return None


def _pairs(value: str, _: Installed) -> str | None:
    wrong = [part for part in value.split(",") if part.strip() and not re.match(r"\s*[^=\s]+\s*=", part)]
    return "pairs such as key=value,key2=value2" if wrong else None


def _readable(value: str, _: Installed) -> str | None:
    try:
        with open(value, "rb"):  # noqa: PTH123 - the path is the user's, as they wrote it
            return None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        return f"the path of a file that can be read ({reason})"


_FLAG: Final = _one_of("true", "false")
_SAMPLERS: Final = (
    "always_on",
    "always_off",
    "traceidratio",
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio",
)

VALUES: Final[Mapping[str, Check]] = {
    "OTEL_SDK_DISABLED": _FLAG,
    "OTEL_RESOURCE_ATTRIBUTES": _pairs,
    "OTEL_CONFIG_FILE": _readable,
    "OTEL_METRICS_EXEMPLAR_FILTER": _one_of("always_on", "always_off", "trace_based"),
    "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": _one_of("cumulative", "delta", "lowmemory"),
    "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION": _one_of(
        "explicit_bucket_histogram", "base2_exponential_bucket_histogram"
    ),
    **{f"OTEL_EXPORTER_OTLP_{part}{end}": check
       for part in ("", *(f"{signal.upper()}_" for signal in SIGNALS))
       for end, check in {
           "PROTOCOL": _one_of(*PROTOCOLS),
           "ENDPOINT": _url,
           "HEADERS": _pairs,
           "TIMEOUT": _number(whole=False),
           "COMPRESSION": _one_of("none", "gzip", "deflate"),
           "CERTIFICATE": _readable,
           "CLIENT_CERTIFICATE": _readable,
           "CLIENT_KEY": _readable,
           "INSECURE": _FLAG,
       }.items()},
    **{f"OTEL_{queue}_{name}": _number(1)
       for queue in ("BSP", "BLRP")
       for name in ("SCHEDULE_DELAY", "EXPORT_TIMEOUT", "MAX_QUEUE_SIZE", "MAX_EXPORT_BATCH_SIZE")},
    **{f"OTEL_METRIC_EXPORT_{name}": _number(1, whole=False) for name in ("INTERVAL", "TIMEOUT")},
    **{f"OTEL_{name}_LIMIT": _number()
       for name in ("ATTRIBUTE_COUNT", "ATTRIBUTE_VALUE_LENGTH", "SPAN_ATTRIBUTE_COUNT", "SPAN_EVENT_COUNT",
                    "SPAN_LINK_COUNT", "SPAN_ATTRIBUTE_VALUE_LENGTH", "EVENT_ATTRIBUTE_COUNT",
                    "LINK_ATTRIBUTE_COUNT", "LOGRECORD_ATTRIBUTE_COUNT")},
}  # fmt: skip
"""What a variable may hold."""

COMPONENTS: Final[Mapping[str, Check]] = {
    "OTEL_TRACES_SAMPLER": _registered("opentelemetry_traces_sampler", *_SAMPLERS),
    "OTEL_PROPAGATORS": _registered("opentelemetry_propagator", "tracecontext", "baggage", "none", many=True),
    "OTEL_EXPERIMENTAL_RESOURCE_DETECTORS": _registered("opentelemetry_resource_detector", "*", many=True),
    "OTEL_PYTHON_ID_GENERATOR": _registered("opentelemetry_id_generator", "random"),
    "OTEL_PYTHON_DISTRO": _registered("opentelemetry_distro"),
    "OTEL_PYTHON_CONFIGURATOR": _registered("opentelemetry_configurator"),
    **{f"OTEL_{signal.upper()}_EXPORTER": _registered(f"opentelemetry_{signal}_exporter", "none", many=True)
       for signal in SIGNALS},
}  # fmt: skip
"""Variables that name something which a package registers."""

CHECKS: Final[Mapping[str, Check]] = {**COMPONENTS, **VALUES}

_RATIO: Final = _number(0, 1, whole=False)


def problems(environ: Mapping[str, str], installed: Installed) -> Iterator[tuple[Problem, str]]:
    """The OpenTelemetry variables whose value cannot be used, and what is wrong in words."""
    for name, value in environ.items():
        if not value.strip():
            continue
        check = CHECKS.get(name)
        if name == "OTEL_TRACES_SAMPLER_ARG" and "traceidratio" in environ.get("OTEL_TRACES_SAMPLER", ""):
            check = _RATIO
        if name.endswith("ENDPOINT") and _speaks_grpc(name, environ) and "://" not in value:
            check = None  # gRPC takes names of its own as well
        if check and (allowed := check(value, installed)):
            problem = errors.NOT_LOADED if name in COMPONENTS else errors.BAD_VALUE
            yield problem, f"{name}={masked(name, value)} is not {allowed}"


def _speaks_grpc(name: str, environ: Mapping[str, str]) -> bool:
    own = environ.get(name.replace("ENDPOINT", "PROTOCOL")) or environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "")
    return own.strip() == "grpc"


def misspelt(environ: Mapping[str, str], known: set[str]) -> Iterator[tuple[str, str]]:
    """`OTEL_*` variables that nothing installed declares, though something declares a name very much like them."""
    for name in environ:
        if name.startswith("OTEL_") and name not in known and name not in CHECKS:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.9)
            # OTEL_PYTHON_<X>_EXCLUDED_URLS and the like belong to instrumentations, which declare nothing.
            if near and not name.startswith("OTEL_PYTHON_"):
                yield name, near[0]


def known_names(installed: Installed) -> set[str]:
    """The variables that the installed packages declare."""
    names = set(CHECKS)
    for entry in installed.entries("opentelemetry_environment_variables"):
        if not _fails(entry.load):
            names |= {value for value in vars(entry.load()).values() if isinstance(value, str)}
    return {name for name in names if name.startswith("OTEL_")}


_SECRET_NAME: Final = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|AUTH", re.IGNORECASE)
_USER_INFO: Final = re.compile(r"(?<=://)[^/?#\s]*@")
_QUERY: Final = re.compile(r"([?&][^=&#\s]+=)[^&#\s]+")


def masked(name: str, value: str) -> str:
    """The value of a variable as it may be shown: without headers' values, credentials and keys.

    >>> masked("OTEL_EXPORTER_OTLP_HEADERS", "api-key=abc,x=y")
    'api-key=***,x=***'
    >>> masked("OTEL_EXPORTER_OTLP_ENDPOINT", "https://me:pw@example.com/?token=abc")
    'https://***@example.com/?token=***'
    """
    if name.endswith("HEADERS"):
        return ",".join(f"{part.partition('=')[0].strip()}=***" if "=" in part else "***" for part in value.split(","))
    # The path of a key file is no secret.
    if _SECRET_NAME.search(name) and not name.endswith(("CLIENT_KEY", "CREDENTIAL_PROVIDER")):
        return "***"
    if name == "OTEL_RESOURCE_ATTRIBUTES":
        pairs = (part.partition("=") for part in value.split(","))
        return scrubbed(",".join(f"{k}{sign}{'***' if _SECRET_NAME.search(k) else v}" for k, sign, v in pairs))
    return scrubbed(value)


def scrubbed(text: str) -> str:
    """A text without the credentials and the query values of the URLs in it."""
    text = _USER_INFO.sub("***@", text)
    return _QUERY.sub(r"\1***", text) if "://" in text else text


def _nearest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""
