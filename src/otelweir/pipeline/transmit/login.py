"""The request of a login: one POST of JSON, with the bounds of every other request."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping

from otelweir.pipeline.transmit.http import Tls, _Connection, _Route, _Trust
from otelweir.pipeline.transmit.outcome import Outcome, of_failure


class LoginRequest:
    """Asks one server for a token.

    Args:
        url: Where to log in.
        tls: Certificates.
        environ: Where the proxies are named.

    Raises:
        ValueError: The URL is none, or not one of HTTP. The text does not repeat it.
    """

    def __init__(
        self,
        url: str,
        *,
        tls: Tls = Tls(),  # noqa: B008 - frozen
        user_agent: str = "otelweir",
        environ: Mapping[str, str] = os.environ,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._route = _Route.of(url, environ)
        self._trust = _Trust(tls)
        self._user_agent = user_agent
        self._clock = clock

    def __repr__(self) -> str:
        return f"<LoginRequest {self._route}>"

    def __call__(self, body: bytes, until: float) -> tuple[int, bytes] | Outcome:
        """The status and the content of the answer, or why there is none. Redirects are not followed."""
        connection = _Connection(self._route, self._clock)
        headers = {
            "User-Agent": self._user_agent,
            **self._route.headers,
            "Content-Type": "application/json",
            "Accept": "application/json",
            "Connection": "close",
        }
        try:
            connection.open(until, self._trust)
            status, _, content = connection.post(self._route.target, body, headers)
        except Exception as error:  # noqa: BLE001 - whatever comes from outside
            return of_failure(error)
        finally:
            connection.close()
        return status, content
