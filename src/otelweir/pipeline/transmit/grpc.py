"""Requests over gRPC: the bytes that HTTP would carry, one call each, one deadline over all of it.

A channel is kept from call to call, and made anew after a call that no server answered, when a file of its certificates
changed, and in a forked process. gRPC's own threads do not survive a fork, and a child that meets what they left behind
may hang; so before a fork the call that is on its way is waited for, for a moment, and the channel is closed.

What comes back is bounded in size. Nothing is logged here, and no header's value or address's password appears in a
`repr`, an outcome or an error.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from otelweir.pipeline.transmit.address import GrpcAddress
from otelweir.pipeline.transmit.compression import MIN_BYTES, Compression, compressed
from otelweir.pipeline.transmit.headers import FRAMES, hushed, metadata
from otelweir.pipeline.transmit.outcome import Delivered, Outcome, RetryAfter, Unauthorised, of_failure, of_grpc
from otelweir.signals import Lane

if TYPE_CHECKING:
    from otelweir.pipeline.transmit.http import Tls

Rest: TypeAlias = Literal["idle", "closed"]
"""How a sender came to rest: there was no channel, or it was closed."""

TIMEOUT_S: Final = 10.0
MAX_ANSWER: Final = 64 * 2**10
"""Bytes of a response message."""

REMEDY: Final = "pip install grpcio"

_SERVICES: Final[Mapping[Lane, str]] = {
    "traces": "trace.v1.TraceService",
    "logs": "logs.v1.LogsService",
    "metrics": "metrics.v1.MetricsService",
}
_SAMPLE: Final = 32 * 2**10
_FORK_PATIENCE_S: Final = 1.0
_SETTLE_S: Final = 0.02
_RETRY_INFO: Final = b"type.googleapis.com/google.rpc.RetryInfo"


class GrpcSender:
    """Sends the requests of one endpoint, of any signal. Threads may use it at the same time, and it survives a fork.

    Args:
        endpoint: `http://collector:4317`, `https://…`, `collector:4317`, or another name that gRPC resolves.
        headers: Asked before each request, so that keys may rotate. Whatever it raises counts as a missing key.
        insecure: See `GrpcAddress.of`.
        timeout_s: For one request, from the look-up of the name to the end of the answer.
        compression: What to compress requests with. gRPC knows no zstd; gzip takes its place.
        tls: Certificates; read when a channel is made, which is made anew when they changed.
        credentials: Makes gRPC's `ChannelCredentials`, in place of `tls`; asked for each new channel.

    Attributes:
        raw_bytes: Of the last request, before compression.
        wire_bytes: After it, an estimate from the beginning of the request.

    Raises:
        ValueError: The endpoint is none. The text does not repeat it.
    """

    def __init__(
        self,
        endpoint: str,
        headers: Callable[[], Mapping[str, str]] = dict,
        *,
        insecure: bool | None = None,
        timeout_s: float = TIMEOUT_S,
        compression: Compression = "none",
        tls: Tls | None = None,
        credentials: Callable[[], Any] | None = None,
        user_agent: str = "otelweir",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._target = GrpcAddress.of(endpoint, insecure)
        self._headers = headers
        self._timeout_s = timeout_s
        self._compression: Compression = compression
        self._files = (tls.ca, tls.client_certificate, tls.client_key) if tls else (None, None, None)
        self._credentials = credentials
        self._user_agent = user_agent
        self._clock = clock
        self._channel: _Channel | None = None
        self._quiet = threading.Condition(threading.Lock())
        self._calls = 0
        self._forking = False
        self._inherited: list[_Channel] = []
        self.raw_bytes = 0
        self.wire_bytes = 0
        library()
        _senders.add(self)

    def __repr__(self) -> str:
        return f"<GrpcSender {self._target}, {'no' if self._channel is None else 'one'} channel>"

    def send(self, body: bytes, lane: Lane, deadline: float | None = None, frames: str = "") -> Outcome:
        """Send one request, and read the answer. Never raises for what the world does.

        Args:
            body: A serialized `Export…ServiceRequest`.
            lane: The signal it holds.
            deadline: A time of the clock by which to be back, if that is sooner than the time-out.
            frames: Goes along as `weir-frames`, if there is something in it.
        """
        until = self._clock() + self._timeout_s
        if deadline is not None:
            until = min(until, deadline)
        own = {"authorization": self._target.authorization} if self._target.authorization else {}
        try:
            given = dict(self._headers())
            sent = metadata({**own, **{name.lower(): value for name, value in given.items()}})
            more = metadata({FRAMES: frames}) if frames else []
        except Exception as error:  # noqa: BLE001 - a credential provider is anybody's code
            return Unauthorised(f"the headers cannot be sent: {type(error).__name__}")
        outcome = self._call(body, lane, [*sent, *more], until)
        return hushed(outcome, [*given.values(), *own.values()])

    def close(self) -> None:
        """Close the channel. The sender can be used on, and makes a new one."""
        with self._quiet:
            channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()

    def _call(self, body: bytes, lane: Lane, sent: list[tuple[str, str]], until: float) -> Outcome:
        grpc = library()
        if grpc is None:
            return RetryAfter(None, f"grpcio is not installed: {REMEDY}")
        self.raw_bytes = len(body)
        self.wire_bytes, algorithm = self._squeezed(body, grpc)
        plain = grpc.Compression.NoCompression
        if self._clock() >= until:
            return of_failure(TimeoutError())
        with self._quiet:
            if not self._quiet.wait_for(lambda: not self._forking, until - self._clock()):
                return of_failure(TimeoutError())
            try:
                channel = self._open(grpc)
            except Exception as error:  # noqa: BLE001 - a credential provider is anybody's code
                return of_failure(error)
            self._calls += 1
        try:
            answer = channel.calls[lane](
                body, timeout=max(0.001, until - self._clock()), metadata=sent, compression=algorithm
            )
        except grpc.RpcError as error:
            outcome = self._refused(error, channel)
            if algorithm == plain or error.code() != grpc.StatusCode.UNIMPLEMENTED or not _of_compression(error):
                return outcome
            # The server cannot read it as it is, and will not be able to read the next one either.
            self._compression = "none"
        except ValueError as error:
            # The channel was closed by another thread between the two lines above.
            return of_failure(error)
        else:
            return of_grpc("OK", body=answer)
        finally:
            with self._quiet:
                self._calls -= 1
                self._quiet.notify_all()
        return self._call(body, lane, sent, until)

    def _refused(self, error: Any, channel: _Channel) -> Outcome:
        code, details = error.code().name, error.details() or ""
        trailers = {name: value for name, value in error.trailing_metadata() or () if isinstance(value, bytes)}
        if code == "RESOURCE_EXHAUSTED" and not trailers and _ours(details):
            # gRPC read a message before it gave up on it, and a server sends one only with a success.
            return Delivered(0, f"the answer has more than {MAX_ANSWER} bytes and was not read")
        if (code == "UNAVAILABLE" and not error.trailing_metadata()) or code == "DEADLINE_EXCEEDED":
            # A channel that failed to connect fails at once for a while, though the server may be back, and one whose
            # other end is gone does not know it.
            with self._quiet:
                if self._channel is channel:
                    self._channel = None
                alone = self._calls == 1
            if alone:
                # Closing ends the calls of other threads; their channel closes when the last of them lets go of it.
                channel.close()
        status = trailers.get("grpc-status-details-bin") or _status(trailers.get("google.rpc.retryinfo-bin"))
        return of_grpc(code, details, status=status)

    def _squeezed(self, body: bytes, grpc: Any) -> tuple[int, Any]:
        """About how many bytes go out, and by which of gRPC's algorithms.

        gRPC compresses by itself and does not say what came of it, so the beginning of the body stands for all of it.
        """
        if self._compression == "none" or len(body) < MIN_BYTES:
            return len(body), grpc.Compression.NoCompression
        deflate = self._compression == "deflate"
        sample = body[:_SAMPLE]
        small, encoding = compressed(sample, "deflate" if deflate else "gzip")
        if encoding is None:
            return len(body), grpc.Compression.NoCompression
        algorithm = grpc.Compression.Deflate if deflate else grpc.Compression.Gzip
        return len(small) * len(body) // len(sample), algorithm

    def _open(self, grpc: Any) -> _Channel:
        stamp = tuple(os.stat(name).st_mtime_ns if name else None for name in self._files)  # noqa: PTH116 - as given
        old = self._channel
        if old is not None and old.stamp == stamp and old.pid == os.getpid():
            return old
        if old is not None and old.pid != os.getpid():
            self._inherited.append(old)
        options = [
            ("grpc.primary_user_agent", self._user_agent),
            ("grpc.max_receive_message_length", MAX_ANSWER),
            ("grpc.max_send_message_length", -1),
            # Retrying is the courier's.
            ("grpc.enable_retries", 0),
            # Else a channel to the same address shares the connection of another one, even of a parent process.
            ("grpc.use_local_subchannel_pool", 1),
        ]
        # Instrumentation wraps these, and would see each export as a call of the application.
        if self._target.secure:
            make = getattr(grpc.secure_channel, "__wrapped__", grpc.secure_channel)
            channel = make(self._target.address, self._trust(grpc), options=options)
        else:
            make = getattr(grpc.insecure_channel, "__wrapped__", grpc.insecure_channel)
            channel = make(self._target.address, options=options)
        self._channel = made = _Channel(channel, stamp)
        if old is not None and old.pid == os.getpid() and self._calls == 0:
            old.close()
        return made

    def _trust(self, grpc: Any) -> Any:
        if self._credentials is not None:
            return self._credentials()
        ca, certificate, key = (_bytes(name) for name in self._files)
        return grpc.ssl_channel_credentials(ca, key or certificate, certificate)

    def before_fork(self, until: float) -> Rest | None:
        """Come to rest, and stay so until `after_fork`; None when that was not possible in time."""
        if not self._quiet.acquire(timeout=max(0.0, until - time.monotonic())):
            return None
        self._forking = True
        self._quiet.wait_for(lambda: self._calls == 0, max(0.0, until - time.monotonic()))
        channel, self._channel = self._channel, None
        if channel is not None:
            # Ends calls that are on their way still; they count as not answered.
            channel.close()
            self._quiet.wait_for(lambda: self._calls == 0, _FORK_PATIENCE_S)
        return "idle" if channel is None else "closed"

    def after_fork(self, *, child: bool, held: bool) -> None:
        """Go on."""
        if child:
            if self._channel is not None:
                # Kept, but never used: closing it might say good-bye on the parent's connection.
                self._inherited.append(self._channel)
            self._channel, self._calls, self._forking = None, 0, False
            self._quiet = threading.Condition(threading.Lock())
        elif held:
            self._forking = False
            self._quiet.notify_all()
            self._quiet.release()


@cache
def library() -> Any:
    """grpcio, with all that it would import later; None where it is not installed."""
    try:
        import grpc  # type: ignore[import-untyped]
    except ImportError:
        return None
    with suppress(ImportError):
        # Imported by the first channel otherwise; a fork meanwhile would leave the child with a half imported module.
        import_module("grpc._channel")
    return grpc


class _Channel:
    def __init__(self, channel: Any, stamp: object) -> None:
        self._channel = channel
        self.stamp = stamp
        self.pid = os.getpid()
        self.calls = {
            lane: channel.unary_unary(
                f"/opentelemetry.proto.collector.{service}/Export",
                request_serializer=None,
                response_deserializer=None,
            )
            for lane, service in _SERVICES.items()
        }

    def close(self) -> None:
        self._channel.close()


_senders: weakref.WeakSet[GrpcSender] = weakref.WeakSet()
_resting = threading.local()


def _before_fork() -> None:
    until = time.monotonic() + _FORK_PATIENCE_S
    _resting.senders = [(sender, sender.before_fork(until)) for sender in list(_senders)]
    if any(rest == "closed" for _, rest in _resting.senders):
        # Closing goes on in gRPC's own threads, and a lock that one of them holds stays locked in the child for ever.
        time.sleep(_SETTLE_S)


def _after_fork(child: bool) -> None:
    for sender, rest in _resting.__dict__.pop("senders", ()):
        sender.after_fork(child=child, held=rest is not None)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=lambda: _after_fork(child=False),
        after_in_child=lambda: _after_fork(child=True),
    )


def _ours(details: str) -> bool:
    """Whether a message that is too large was the answer, not the request."""
    return "CLIENT: Received message larger than max" in details


def _of_compression(error: Any) -> bool:
    """Whether a server says that it cannot decompress; there is no code for it alone."""
    return "compress" in (error.details() or "").lower()


def _status(retry_info: bytes | None) -> bytes:
    """A `google.rpc.Status` around a bare `RetryInfo`, which some servers send by itself."""
    if not retry_info or len(retry_info) > 60:
        return b""
    detail = b"\x0a%c%s\x12%c%s" % (len(_RETRY_INFO), _RETRY_INFO, len(retry_info), retry_info)
    return b"\x1a%c%s" % (len(detail), detail)


def _bytes(path: str | None) -> bytes | None:
    if path is None:
        return None
    with open(path, "rb") as file:  # noqa: PTH123 - as given
        return file.read()
