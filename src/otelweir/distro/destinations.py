"""Where each signal goes, and how: what the `OTEL_EXPORTER_OTLP_*` variables say, made into senders.

They mean what the specification says; where it is silent, what OpenTelemetry's Python exporters do. A value that cannot
be used is reported, and the next best one applies: that of all signals, else the default.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlsplit

from otelweir import errors
from otelweir.distro.otel_variables import headers as read_headers
from otelweir.distro.otel_variables import is_url, masked
from otelweir.signals import Lane
from otelweir.variables import without_credentials

if TYPE_CHECKING:
    from otelweir.pipeline.transmit.compression import Compression
    from otelweir.pipeline.transmit.credentials import Login
    from otelweir.pipeline.transmit.http import Tls
    from otelweir.pipeline.transmit.settings import TransmitSettings

T = TypeVar("T")

TIMEOUT_S: Final = 10.0
DEFAULTS: Final = {"http/protobuf": "http://localhost:4318", "grpc": "http://localhost:4317"}

PROVIDERS: Final = "opentelemetry_otlp_credential_provider"
"""The entry point group of credential providers."""

_COMPRESSIONS: Final = ("none", "gzip", "deflate", "zstd")


@dataclass(frozen=True)
class Destination:
    """Where a lane goes. Equal ones send to the same place in the same way.

    Attributes:
        lane: The signal.
        protocol: Of OTLP.
        endpoint: Fit to be shown.
        key: Equal for lanes that go to the same server.
    """

    lane: Lane
    protocol: str
    endpoint: str
    key: str
    _url: str = field(repr=False)
    _headers: tuple[tuple[str, str], ...] = field(repr=False)
    _timeout_s: float = field(default=TIMEOUT_S, repr=False)
    _compression: str = field(default="none", repr=False)
    _files: tuple[str | None, str | None, str | None] = field(default=(None, None, None), repr=False)
    _insecure: bool | None = field(default=None, repr=False)
    _provider: tuple[str, str] | None = field(default=None, repr=False)
    _headers_file: str | None = field(default=None, repr=False)
    _auth: tuple[str, str, str, str | None] | None = field(default=None, repr=False)
    _environ: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)

    def secrets(self) -> list[str]:
        """What must not be shown, whoever repeats it: the values of headers, and the password."""
        return [value for _, value in self._headers] + ([self._auth[2]] if self._auth is not None else [])

    def sender(self) -> Any:
        """What sends there; see `otelweir.pipeline.transmit`. The libraries that it needs are loaded here.

        Never raises for what a variable says: what cannot be used is reported and left out.
        """
        from otelweir.pipeline.transmit.credentials import HeadersFile, LoggedIn
        from otelweir.pipeline.transmit.headers import merged
        from otelweir.pipeline.transmit.http import Tls

        agent = user_agent()
        tls = Tls(*self._files)
        file = HeadersFile(self._headers_file) if self._headers_file else None
        login = _login(self._auth, tls, agent, self._environ) if self._auth is not None else None
        fixed = dict(self._headers)

        def headers() -> Mapping[str, str]:
            return merged(fixed, file() if file is not None else {}, login.headers() if login is not None else {})

        sender = self._plain_sender(headers, tls, agent)
        return LoggedIn(sender, login, timeout_s=self._timeout_s) if login is not None else sender

    def _plain_sender(self, headers: Callable[[], Mapping[str, str]], tls: Tls, agent: str) -> Any:
        from otelweir.pipeline.transmit.compression import zstd_is_installed

        compression: Compression = self._compression  # type: ignore[assignment]
        if self.protocol == "grpc":
            return self._grpc_sender(headers, tls, agent, compression)
        if compression == "zstd" and not zstd_is_installed():
            errors.warn(
                errors.MISSING_EXTRA,
                "OTEL_EXPORTER_OTLP_COMPRESSION=zstd needs zstandard, and gzip takes its place:"
                " pip install 'otelweir[zstd]'",
            )
        if (session := self._provided("a requests.Session", _is_session)) is not None:
            from otelweir.pipeline.transmit.session import SessionSender

            return SessionSender(
                self._url,
                session,
                headers,
                timeout_s=self._timeout_s,
                compression=compression,
                tls=tls,
                user_agent=agent,
                during=_quietly,
            )
        from otelweir.pipeline.transmit.http import HttpSender

        def sender(url: str, environ: Mapping[str, str]) -> HttpSender:
            return HttpSender(
                url,
                headers,
                timeout_s=self._timeout_s,
                compression=compression,
                tls=tls,
                user_agent=agent,
                environ=environ,
            )

        # The endpoint was looked at before; left are a proxy that cannot be used, and what only the sender knows.
        default = f"{DEFAULTS['http/protobuf']}/v1/{self.lane}"
        for url, environ in ((self._url, self._environ), (self._url, {})):
            try:
                return sender(url, environ)
            except ValueError as error:
                errors.warn(errors.BAD_VALUE, f"{self.endpoint}: {error}")
        return sender(default, {})

    def _grpc_sender(
        self, headers: Callable[[], Mapping[str, str]], tls: Tls, agent: str, compression: Compression
    ) -> Any:
        from otelweir.pipeline.transmit.grpc import REMEDY, GrpcSender, library

        if library() is None:
            errors.warn(errors.MISSING_EXTRA, f"OTEL_EXPORTER_OTLP_PROTOCOL=grpc needs grpcio: {REMEDY}")

        def sender(endpoint: str, insecure: bool | None) -> Any:
            return GrpcSender(
                endpoint,
                headers,
                insecure=insecure,
                timeout_s=self._timeout_s,
                compression=compression,
                tls=tls,
                credentials=self._provided("grpc.ChannelCredentials", _are_channel_credentials),
                user_agent=agent,
            )

        try:
            return sender(self._url, self._insecure)
        except ValueError as error:
            errors.warn(errors.BAD_VALUE, f"{self.endpoint}: {error}")
            return sender(DEFAULTS["grpc"], True)

    def _provided(self, kind: str, fits: Callable[[Any], bool]) -> Callable[[], Any] | None:
        """What makes the credentials that a variable names; None when it names none, or none that can be used."""
        if self._provider is None:
            return None
        from opentelemetry.util._importlib_metadata import entry_points

        variable, name = self._provider
        try:
            found = next(iter(entry_points(group=PROVIDERS, name=name)), None)
            if found is None:
                errors.warn(errors.NOT_LOADED, f"{variable}={name}: no package provides it in the group {PROVIDERS}")
                return None
            make = found.load()
            first = [make()]
        except Exception as error:  # noqa: BLE001 - whatever a plug-in raises; its text may hold a secret
            errors.warn(errors.NOT_LOADED, f"{variable}={name}: it fails with {type(error).__name__}")
            return None
        if not fits(first[0]):
            errors.warn(errors.NOT_LOADED, f"{variable}={name}: it gives {type(first[0]).__name__}, not {kind}")
            return None
        # The one that was looked at is the first that is used.
        return lambda: first.pop() if first else make()


def destination(
    lane: Lane,
    environ: Mapping[str, str],
    *,
    endpoint: str | None = None,
    headers: Mapping[str, str] | None = None,
    settings: TransmitSettings,
) -> Destination:
    """The destination of a lane.

    Args:
        lane: The signal.
        environ: The environment, the distribution's defaults included.
        endpoint: The base URL for all signals, over the variables; paths as `/v1/logs` are added for HTTP.
        headers: For every request, over those of the variables.
        settings: The file of headers and the login.
    """
    from otelweir.distro.exporters import protocol as protocol_of

    protocol = protocol_of(lane, environ)
    variables = _Variables(lane, environ)
    if protocol == "grpc":
        url, key = _grpc_endpoint(variables, endpoint)
    else:
        url, key = _http_endpoint(variables, endpoint)
    found = {**_headers(variables), **{name.lower(): value for name, value in (headers or {}).items()}}
    return Destination(
        lane,
        protocol,
        without_credentials(url),
        key,
        url,
        tuple(sorted(found.items())),
        _timeout_s=variables.first("TIMEOUT", _seconds, "seconds, more than 0") or TIMEOUT_S,
        _compression=variables.first("COMPRESSION", _compression, "none, gzip, deflate or zstd") or "none",
        _files=(
            variables.first("CERTIFICATE", lambda text: text),
            variables.first("CLIENT_CERTIFICATE", lambda text: text),
            variables.first("CLIENT_KEY", lambda text: text),
        ),
        _insecure=variables.first("INSECURE", _flag, "true or false") if protocol == "grpc" else None,
        _provider=_provider(lane, protocol, environ),
        _headers_file=settings.headers_file,
        _auth=_auth(settings),
        _environ=environ,
    )


def user_agent() -> str:
    """How requests name who sends them, as the specification of OTLP exporters asks."""
    from importlib.metadata import PackageNotFoundError, version

    names = {"otelweir": "otelweir", "OTel-OTLP-Exporter-Python": "opentelemetry-exporter-otlp"}
    words = []
    for name, package in names.items():
        try:
            words.append(f"{name}/{version(package)}")
        except PackageNotFoundError:
            words.append(name)
    return " ".join(words)


class _Variables:
    """The `OTEL_EXPORTER_OTLP_*` variables of a signal: its own, then those of all signals."""

    def __init__(self, lane: Lane, environ: Mapping[str, str]) -> None:
        self.lane = lane
        self._environ = environ

    def each(self, name: str) -> Iterator[tuple[str, str, bool]]:
        """Variable, value, and whether it is the signal's own. An empty one counts as unset."""
        for variable in (f"OTEL_EXPORTER_OTLP_{self.lane.upper()}_{name}", f"OTEL_EXPORTER_OTLP_{name}"):
            if value := self._environ.get(variable, "").strip():
                yield variable, value, self.lane.upper() in variable

    def first(self, name: str, read: Callable[[str], T], allowed: str = "") -> T | None:
        """The first value that can be read; the others before it are reported."""
        for variable, value, _ in self.each(name):
            try:
                return read(value)
            except ValueError:
                bad(variable, value, allowed)
        return None


def bad(variable: str, value: str, allowed: str) -> None:
    """Report a value that cannot be used."""
    errors.warn(errors.BAD_VALUE, f"{variable}={masked(variable, value)!r} is not {allowed}")


def _headers(variables: _Variables) -> Mapping[str, str]:
    """The headers of the signal's own variable, else of all signals'; what is malformed is reported and left out."""
    for variable, value, _ in variables.each("HEADERS"):
        if any(part.strip() and not read_headers(part) for part in value.split(",")):
            bad(variable, value, "pairs such as key=value,key2=value2, URL-encoded")
        return read_headers(value)
    return {}


def _http_endpoint(variables: _Variables, endpoint: str | None) -> tuple[str, str]:
    words = "a URL such as http://localhost:4318"
    if endpoint is not None:
        if _fit(endpoint):
            return _below(endpoint, variables.lane)
        errors.warn(errors.BAD_VALUE, f"endpoint={without_credentials(endpoint)!r} is not {words}")
    for variable, value, own in variables.each("ENDPOINT"):
        if _fit(value):
            return (value, _authority(value)) if own else _below(value, variables.lane)
        bad(variable, value, words)
    return _below(DEFAULTS["http/protobuf"], variables.lane)


def _fit(url: str) -> bool:
    """Whether requests can go to a URL as it is written."""
    text = url.strip()
    return is_url(text) and text.isascii() and text.isprintable() and " " not in text


def _below(base: str, lane: Lane) -> tuple[str, str]:
    """The URL of a signal below a base; a query stays at the end."""
    parts = urlsplit(base.strip())
    path = f"{parts.path.removesuffix('/')}/v1/{lane}"
    return parts._replace(path=path, fragment="").geturl(), _authority(base)


def _authority(url: str) -> str:
    parts = urlsplit(url.strip())
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return f"{(parts.hostname or '').lower()}:{port}"


def _grpc_endpoint(variables: _Variables, endpoint: str | None) -> tuple[str, str]:
    from otelweir.pipeline.transmit.address import GrpcAddress

    given = [("endpoint", endpoint)] if endpoint is not None else []
    given += [(variable, value) for variable, value, _ in variables.each("ENDPOINT")]
    for name, value in given:
        try:
            there = GrpcAddress.of(value)
        except ValueError:
            words = "an address such as http://localhost:4317"
            errors.warn(errors.BAD_VALUE, f"{name}={without_credentials(value)!r} is not {words}")
            continue
        return value.strip(), there.address.lower()
    return DEFAULTS["grpc"], urlsplit(DEFAULTS["grpc"]).netloc


def _seconds(text: str) -> float:
    number = float(text)
    if not 0 < number < math.inf:
        raise ValueError
    return number


def _compression(text: str) -> str:
    if text.lower() not in _COMPRESSIONS:
        raise ValueError
    return text.lower()


def _flag(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError
    return text.lower() == "true"


def _provider(lane: Lane, protocol: str, environ: Mapping[str, str]) -> tuple[str, str] | None:
    """The variable that names a credential provider, and the name. The general one wins, as in the exporters."""
    prefix = f"OTEL_PYTHON_EXPORTER_OTLP_{'GRPC' if protocol == 'grpc' else 'HTTP'}"
    for variable in (f"{prefix}_CREDENTIAL_PROVIDER", f"{prefix}_{lane.upper()}_CREDENTIAL_PROVIDER"):
        if name := environ.get(variable, "").strip():
            return variable, name
    return None


def _auth(settings: TransmitSettings) -> tuple[str, str, str, str | None] | None:
    """Where and as whom to log in; None when nobody does."""
    if settings.auth_url is None:
        return None
    if settings.auth_user is None or settings.auth_password is None:
        missing = "WEIR_AUTH_USER" if settings.auth_user is None else "WEIR_AUTH_PASSWORD"
        errors.warn(errors.LOGIN, f"WEIR_AUTH_URL is set, and {missing} is not, so nobody logs in")
        return None
    return settings.auth_url, settings.auth_user, settings.auth_password, settings.auth_workspace


_logins: dict[object, Login] = {}


def _login(auth: tuple[str, str, str, str | None], tls: Tls, agent: str, environ: Mapping[str, str]) -> Login | None:
    """The login that all senders of this process share; None when its URL is none."""
    from otelweir.pipeline.transmit.credentials import Login, request_of
    from otelweir.pipeline.transmit.login import LoginRequest

    url, user, password, workspace = auth
    if (known := _logins.get(auth)) is not None:
        return known
    try:
        # Not the certificates of the endpoint: the login is another server.
        ask = LoginRequest(url, user_agent=agent, environ=environ)
    except ValueError as error:
        errors.warn(errors.LOGIN, f"WEIR_AUTH_URL={without_credentials(url)!r}: {error}")
        return None
    # Of two threads that come here at once, both get the one that came first.
    return _logins.setdefault(auth, Login(without_credentials(url), request_of(user, password, workspace), ask))


def _is_session(found: Any) -> bool:
    import requests

    return isinstance(found, requests.Session)


def _are_channel_credentials(found: Any) -> bool:
    import grpc  # type: ignore[import-untyped]

    return isinstance(found, grpc.ChannelCredentials)


def _quietly() -> AbstractContextManager[None]:
    """What clients log while they export is nobody's business, and would have to be exported again."""
    from otelweir.pipeline.capture import quiet

    return quiet.during(quiet.exporting)
