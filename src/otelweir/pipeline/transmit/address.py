"""Where gRPC connects to, as an endpoint says it. The application reads endpoints while it starts, so nothing heavy is
imported here."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit


@dataclass(frozen=True, slots=True)
class GrpcAddress:
    """What gRPC connects to.

    Attributes:
        address: As gRPC wants it: `collector:4317`, or a name of its own, such as `dns:///collector:4317`.
        secure: Whether with TLS.
        authorization: Made of a user and a password in the endpoint; empty where there are none.
    """

    address: str
    secure: bool
    authorization: str = field(default="", repr=False)

    @classmethod
    def of(cls, endpoint: str, insecure: bool | None = None) -> GrpcAddress:
        """Read an endpoint as OpenTelemetry's exporter does.

        Args:
            endpoint: A URL of `http://` or `https://`, of which the path does not count, or a name that gRPC resolves.
            insecure: Whether to do without TLS. `https://` wins over it; None leaves it to the scheme, and without one
                it is TLS.

        Raises:
            ValueError: There is no host in it. The text does not repeat it.
        """
        text = endpoint.strip()
        scheme, sign, rest = text.partition("://")
        if sign and scheme.lower() in ("http", "https"):
            try:
                parts = urlsplit(text)
                host, _ = parts.hostname, parts.port
            except ValueError:
                host = None
            if not host or not host.isascii() or not host.isprintable() or " " in host:
                raise ValueError("the endpoint has no host") from None
            user, _, address = parts.netloc.rpartition("@")
            name, _, password = user.partition(":")
            key = b64encode(f"{unquote(name)}:{unquote(password)}".encode()).decode() if user else ""
            secure = scheme.lower() == "https" or insecure is False
            return cls(address, secure, f"Basic {key}" if key else "")
        if (
            not text
            or not text.isascii()
            or not text.isprintable()
            or " " in text
            or "@" in text
            or (sign and not rest)
        ):
            raise ValueError("the endpoint is no address that gRPC knows")
        return cls(text, not insecure)

    def __str__(self) -> str:
        return f"{'grpcs' if self.secure else 'grpc'}://{self.address}"
