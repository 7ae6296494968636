"""Requests through a `requests.Session` that somebody else has made, with the credentials that are in it.

A session knows no deadline over a whole request, only one for each read, so each request runs in a thread that is left
behind when the time is over. There is one such thread at most: until it has come back, nothing else is sent.
"""

from __future__ import annotations

import contextvars
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Final

from otelweir.pipeline.transmit.compression import Compression, compressed, decompressed
from otelweir.pipeline.transmit.headers import FRAMES, check, hushed, merged
from otelweir.pipeline.transmit.outcome import Outcome, RetryAfter, Unauthorised, of_failure, of_http
from otelweir.signals import Lane

if TYPE_CHECKING:
    from otelweir.pipeline.transmit.http import Tls

TIMEOUT_S: Final = 10.0
MAX_ANSWER: Final = 64 * 2**10

_DEEPEST: Final = 20


class SessionSender:
    """Sends the requests of one endpoint through a session. It survives a fork, with a session of its own.

    Args:
        url: The whole URL of a signal: `https://collector:4318/v1/logs`.
        session: Makes the `requests.Session`; asked with the first request, and again in a forked process. Whatever it
            raises counts as a missing key.
        headers: Asked before each request. Whatever it raises counts as a missing key.
        timeout_s: For one request.
        compression: What to compress requests with.
        tls: Certificates; what is not given, the session decides.
        during: Entered on the thread that sends.

    Attributes:
        raw_bytes: Of the last request, before compression.
        wire_bytes: After it.
    """

    def __init__(
        self,
        url: str,
        session: Callable[[], Any],
        headers: Callable[[], Mapping[str, str]] = dict,
        *,
        timeout_s: float = TIMEOUT_S,
        compression: Compression = "none",
        tls: Tls | None = None,
        user_agent: str = "otelweir",
        during: Callable[[], AbstractContextManager[object]] = nullcontext,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = url
        self._make = session
        self._headers = headers
        self._timeout_s = timeout_s
        self._compression: Compression = compression
        self._tls = tls
        self._user_agent = user_agent
        self._during = during
        self._clock = clock
        self._made: tuple[int, Any] | None = None
        self._busy: tuple[int, threading.Thread] | None = None
        self.raw_bytes = 0
        self.wire_bytes = 0

    def __repr__(self) -> str:
        return f"<SessionSender {'a session' if self._made else 'no session yet'}>"

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
        if not self._free(until):
            return RetryAfter(None, "the last request has not come back yet")
        if self._clock() >= until:
            return of_failure(TimeoutError())
        try:
            given = dict(self._headers())
            check(given)
            session = self._session()
        except Exception as error:  # noqa: BLE001 - a credential provider is anybody's code
            return Unauthorised(f"the credentials cannot be had: {type(error).__name__}")
        sent, encoding = compressed(body, self._compression)
        self.raw_bytes, self.wire_bytes = len(body), len(sent)
        headers = merged(
            {"User-Agent": self._user_agent},
            given,
            {"Content-Type": "application/x-protobuf", "Content-Encoding": encoding or "", FRAMES: frames},
        )
        answers: list[Outcome] = []

        def work() -> None:
            with self._during():
                answers.append(self._post(session, sent, headers, lane, until))

        thread = threading.Thread(target=contextvars.copy_context().run, args=(work,), name="weir-send", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            # The interpreter is ending and starts no threads.
            work()
        else:
            self._busy = (os.getpid(), thread)
            thread.join(max(0.0, until - self._clock()))
        outcome = answers[0] if answers else of_failure(TimeoutError())
        return hushed(outcome, given.values())

    def close(self) -> None:
        """Close the session's connections."""
        if self._made is not None and self._made[0] == os.getpid():
            self._made[1].close()

    def _free(self, until: float) -> bool:
        if self._busy is not None and self._busy[0] == os.getpid():
            self._busy[1].join(max(0.0, until - self._clock()))
            return not self._busy[1].is_alive()
        return True

    def _session(self) -> Any:
        if self._made is None or self._made[0] != os.getpid():
            session = self._make()
            if self._tls is not None and self._tls.ca:
                session.verify = self._tls.ca
            if self._tls is not None and self._tls.client_certificate:
                key = self._tls.client_key
                session.cert = (self._tls.client_certificate, key) if key else self._tls.client_certificate
            self._made = (os.getpid(), session)
        return self._made[1]

    def _post(self, session: Any, body: bytes, headers: Mapping[str, str], lane: Lane, until: float) -> Outcome:
        try:
            left_s = max(0.001, until - self._clock())
            answer = session.post(
                self._url, data=body, headers=dict(headers), timeout=left_s, allow_redirects=False, stream=True
            )
        except Exception as error:  # noqa: BLE001 - a session is anybody's code
            return of_failure(_cause(error))
        fields = {str(name).lower(): str(value) for name, value in answer.headers.items()}
        raw = self._content(answer.raw, until)
        try:
            if len(raw) >= MAX_ANSWER:
                answer.raw.close()
            answer.close()
        except Exception:  # noqa: BLE001 - the answer is here
            pass
        content = decompressed(raw, fields.get("content-encoding", ""), MAX_ANSWER)
        return of_http(answer.status_code, fields, content, lane, time.time())

    def _content(self, raw: Any, until: float) -> bytes:
        """As much of the content as came in time and is wanted, as it came."""
        pieces, size = [], 0
        try:
            while size < MAX_ANSWER and self._clock() < until:
                piece = raw.read(min(4096, MAX_ANSWER - size), decode_content=False)
                if not piece:
                    break
                pieces.append(piece)
                size += len(piece)
        except Exception:  # noqa: BLE001 - the status came, and counts
            pass
        return b"".join(pieces)


def _cause(error: BaseException) -> BaseException:
    """What lies at the ground of an exception of requests, which hides it in its arguments and attributes."""
    found = error
    waiting: list[Any] = [error]
    for _ in range(_DEEPEST):
        if not waiting:
            break
        link = waiting.pop(0)
        if not isinstance(link, BaseException):
            continue
        if isinstance(link, (ssl.SSLError, socket.gaierror, TimeoutError)) or (
            isinstance(link, OSError) and type(link).__module__ == "builtins"
        ):
            found = link
        name = type(link).__name__
        if "Timeout" in name:
            return TimeoutError()
        waiting += [getattr(link, "reason", None), *link.args, link.__cause__, link.__context__]
    return found
