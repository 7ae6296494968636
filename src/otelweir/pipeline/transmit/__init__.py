"""Requests on their way out, and what became of them."""

from typing import TYPE_CHECKING

from otelweir.faces import lazily

if TYPE_CHECKING:
    from otelweir.pipeline.transmit.breaker import Breaker, Change
    from otelweir.pipeline.transmit.compression import Compression
    from otelweir.pipeline.transmit.courier import Courier, CourierThread, Gate, LaneState, Route, Sent
    from otelweir.pipeline.transmit.credentials import HeadersFile, LoggedIn, Login
    from otelweir.pipeline.transmit.grpc import GrpcSender
    from otelweir.pipeline.transmit.http import HttpSender, Tls
    from otelweir.pipeline.transmit.login import LoginRequest
    from otelweir.pipeline.transmit.outcome import Delivered, Outcome, Rejected, RetryAfter, TooLarge, Unauthorised
    from otelweir.pipeline.transmit.retry import Backoff
    from otelweir.pipeline.transmit.session import SessionSender
    from otelweir.pipeline.transmit.sizing import Sizing

__all__ = [
    "Backoff",
    "Breaker",
    "Change",
    "Compression",
    "Courier",
    "CourierThread",
    "Delivered",
    "Gate",
    "GrpcSender",
    "HeadersFile",
    "HttpSender",
    "LaneState",
    "LoggedIn",
    "Login",
    "LoginRequest",
    "Outcome",
    "Rejected",
    "RetryAfter",
    "Route",
    "Sent",
    "SessionSender",
    "Sizing",
    "Tls",
    "TooLarge",
    "Unauthorised",
]

_HOMES = {
    "Backoff": "retry",
    "Breaker": "breaker",
    "Change": "breaker",
    "Compression": "compression",
    "Courier": "courier",
    "CourierThread": "courier",
    "Gate": "courier",
    "GrpcSender": "grpc",
    "HeadersFile": "credentials",
    "HttpSender": "http",
    "LaneState": "courier",
    "LoggedIn": "credentials",
    "Login": "credentials",
    "LoginRequest": "login",
    "Route": "courier",
    "Sent": "courier",
    "SessionSender": "session",
    "Sizing": "sizing",
    "Tls": "http",
}

__getattr__, __dir__ = lazily(__name__, {name: _HOMES.get(name, "outcome") for name in __all__})
