"""OpenTelemetry's own variables: which are known, what they may hold, and how to show them without their secrets.

OpenTelemetry answers a bad value with a line in the log or a traceback at start-up, or silently with its default. Here
the check comes first and says what is allowed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Final, NamedTuple, TypeAlias
from urllib.parse import unquote, urlsplit

from otelweir import errors
from otelweir.distro.installed import Installed
from otelweir.errors import Problem
from otelweir.variables import scrubbed, without_credentials

Check: TypeAlias = Callable[[str, Installed], "str | None"]
"""Takes a variable's value; gives what would be allowed, or None when the value is good."""


class Wrong(NamedTuple):
    """A variable whose value cannot be used: what is wrong, and what to do where the problem's remedy is not it."""

    problem: Problem
    what: str
    remedy: str | None = None


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


_HEADER_NAME: Final = re.compile(r"[!#-'*+\-.0-9A-Z^-z|~]+")
_HEADER_VALUE: Final = re.compile(r"[ !#-+\--:<-\[\]-~]*")


def headers(text: str) -> Mapping[str, str]:
    """The headers that the exporters take from a variable, name in lower case; what is malformed they leave out.

    Source: `parse_env_headers` of opentelemetry-api, which logs what it leaves out, credentials and all.
    """
    found: dict[str, str] = {}
    for part in text.split(","):
        name, sign, value = (piece.strip(" \t") for piece in part.strip().partition("="))
        if sign and _HEADER_NAME.fullmatch(name) and _HEADER_VALUE.fullmatch(value):
            # With a space in it a value is taken as it stands.
            plain = " " in value
            found[(name if plain else unquote(name)).strip().lower()] = value if plain else unquote(value).strip()
    return found


def _headers(value: str, _: Installed) -> str | None:
    parts = [part for part in value.split(",") if part.strip()]
    if any(not headers(part) for part in parts):
        return "pairs such as key=value,key2=value2, URL-encoded"
    if not all(text.isprintable() for pair in headers(value).items() for text in pair):
        return "pairs without control characters, decoded; HTTP does not take them"
    return None


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
           "HEADERS": _headers,
           "TIMEOUT": _number(whole=False),
           "COMPRESSION": _one_of("none", "gzip", "deflate", "zstd"),
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


def problems(environ: Mapping[str, str], installed: Installed) -> Iterator[Wrong]:
    """The OpenTelemetry variables whose value cannot be used, and what is wrong in words."""
    if (given := environ.get("OTEL_PROPAGATORS", "")).strip() and COMPONENTS["OTEL_PROPAGATORS"](given, installed):
        # Without the propagators nothing of OpenTelemetry can be imported; that says nothing about other components.
        installed = installed.unloaded()
    for name, value in environ.items():
        if not value.strip():
            continue
        check = CHECKS.get(name)
        if name == "OTEL_TRACES_SAMPLER_ARG":
            check = _sampler_argument(environ.get("OTEL_TRACES_SAMPLER", "").strip())
        if name.endswith("ENDPOINT") and _speaks_grpc(name, environ) and "://" not in value:
            check = None  # gRPC takes names of its own as well
        if check and (allowed := check(value, installed)):
            problem = errors.NOT_LOADED if name in COMPONENTS else errors.BAD_VALUE
            yield Wrong(problem, f"{name}={masked(name, value)} is not {allowed}", _remedy(name, value))
    yield from _queues(environ)


def _sampler_argument(sampler: str) -> Check | None:
    if sampler == "weir":
        # Only here: a start that asks about other variables need not wait for it.
        from otelweir.pipeline.sample.spans.argument import flaw_of

        return lambda value, _: flaw_of(value)
    return _RATIO if "traceidratio" in sampler else None


def _remedy(name: str, value: str) -> str | None:
    """What to do about a value that OpenTelemetry does not answer with its default."""
    if name == "OTEL_TRACES_SAMPLER_ARG":
        return "Correct the value; until then every trace is kept."
    if name == "OTEL_PROPAGATORS":
        return "Correct the name, or install the package that provides it; until then the service does not start."
    if name in COMPONENTS:
        return None
    if name.startswith("OTEL_EXPORTER_OTLP_") and name.endswith("HEADERS"):
        return "Correct the value; until then the exporters leave the header out or fail with it."
    if name.endswith("_LIMIT") or name == "OTEL_METRICS_EXEMPLAR_FILTER" or _stops(name, value):
        return "Correct the value; until then OpenTelemetry fails at start-up and the service sends nothing."
    return "Correct the value; until then the default applies." if name in _WITH_DEFAULT else _CORRECT


_CORRECT: Final = "Correct the value; until then OpenTelemetry leaves it out or fails with it."
_WITH_DEFAULT: Final = frozenset(
    name
    for name in VALUES
    if name.endswith(("TIMEOUT", "COMPRESSION", "PREFERENCE", "AGGREGATION", "DISABLED"))
    or name.startswith(("OTEL_BSP_", "OTEL_BLRP_", "OTEL_METRIC_EXPORT_"))
)


def _stops(name: str, value: str) -> bool:
    """Whether a number below its least makes the SDK raise; what is no number, it replaces by the default."""
    if not name.startswith(("OTEL_BSP_", "OTEL_BLRP_", "OTEL_METRIC_EXPORT_")) or name.endswith("_TIMEOUT"):
        return False
    try:
        return float(value) <= 0
    except ValueError:
        return False


def _queues(environ: Mapping[str, str]) -> Iterator[Wrong]:
    """Batches that are larger than the queue, for which the SDK refuses to start."""
    for queue, signal in (("BSP", "TRACES"), ("BLRP", "LOGS")):
        size, batch = f"OTEL_{queue}_MAX_QUEUE_SIZE", f"OTEL_{queue}_MAX_EXPORT_BATCH_SIZE"
        most, many = _whole(environ.get(size), 2048), _whole(environ.get(batch), 512)
        if 0 < most < many and environ.get(f"OTEL_{signal}_EXPORTER", "").strip().lower() != "none":
            yield Wrong(
                errors.BAD_VALUE,
                f"{batch} ({many}) is larger than {size} ({most})",
                f"Make {batch} at most {most}, or {size} at least {many}; until then OpenTelemetry fails at start-up"
                " and the service sends nothing.",
            )


def _whole(value: str | None, default: int) -> int:
    try:
        return int(value or default)
    except ValueError:
        return default


def _speaks_grpc(name: str, environ: Mapping[str, str]) -> bool:
    own = environ.get(name.replace("ENDPOINT", "PROTOCOL")) or environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "")
    return own.strip() == "grpc"


def misspelt(environ: Mapping[str, str], known: set[str]) -> Iterator[tuple[str, str]]:
    """`OTEL_*` variables that nothing installed declares, though something declares a name very much like them."""
    for name in environ:
        if name.startswith("OTEL_") and name not in known and name not in CHECKS:
            import difflib  # for mistakes only

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
_ADDRESS_NAME: Final = ("ENDPOINT", "URL", "URI", "PROXY")


def masked(name: str, value: str) -> str:
    """The value of a variable as it may be shown: without headers' values, credentials and keys.

    >>> masked("OTEL_EXPORTER_OTLP_HEADERS", "api-key=abc,x=y")
    'api-key=***,x=***'
    >>> masked("OTEL_EXPORTER_OTLP_ENDPOINT", "https://me:pw@example.com/?token=abc")
    'https://***@example.com/?token=***'
    """
    if "HEADER" in name:
        return ",".join(_masked_header(*part.partition("=")) for part in value.split(","))
    # The path of a key file is no secret.
    if _SECRET_NAME.search(name) and not name.endswith(("CLIENT_KEY", "CREDENTIAL_PROVIDER")):
        return "***"
    if name == "OTEL_RESOURCE_ATTRIBUTES":
        pairs = (part.partition("=") for part in value.split(","))
        return scrubbed(",".join(f"{k}{sign}{'***' if _SECRET_NAME.search(k) else v}" for k, sign, v in pairs))
    return without_credentials(value) if name.endswith(_ADDRESS_NAME) else scrubbed(value)


def _masked_header(name: str, sign: str, value: str) -> str:
    # Signs without anything after them are the end of a key in base64, and what stands before them no name.
    named = value.strip("= \t") and _HEADER_NAME.fullmatch(name.strip())
    return f"{name.strip()}{sign}***" if named else "***"


def _nearest(name: str, known: list[str]) -> str:
    import difflib  # for mistakes only

    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""
