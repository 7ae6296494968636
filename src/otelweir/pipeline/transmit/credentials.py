"""Keys that change while the process runs: headers from a file, and a token from a login.

Neither raises, and neither shows a secret: what is said names files, addresses without their credentials, and kinds of
errors.
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
from base64 import urlsafe_b64decode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from stat import S_ISREG
from typing import Final, Protocol

from otelweir.errors import HEADERS_FILE, LOGIN, Trouble
from otelweir.pipeline.transmit.headers import check
from otelweir.pipeline.transmit.outcome import Outcome, RetryAfter, Unauthorised
from otelweir.signals import Lane

MAX_FILE: Final = 64 * 2**10
"""Bytes of a file of headers."""

LOGIN_TIMEOUT_S: Final = 5.0
EARLY: Final = 0.8
"""The part of a token's life after which the next one is fetched."""

PATIENCE_S: Final = 10.0
"""A token that is younger is not replaced because a server refuses it: another one would fare no better."""

_FIRST_WAIT_S: Final = 1.0
_LONGEST_WAIT_S: Final = 60.0
_LINE: Final = re.compile(r"([!#-'*+\-.0-9A-Z^-z|~]+)[ \t]*[:=][ \t]*(.*)")
_TOKENS: Final = ("access_token", "token", "accessToken", "jwt", "id_token")


def parse_headers(text: str) -> dict[str, str]:
    """The headers in a text of lines `name: value` or `name=value`; empty lines and those that begin with `#` do not
    count. Names come out in lower case.

    Raises:
        ValueError: A line is no header; the text names its number alone.
    """
    found: dict[str, str] = {}
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
        plain = line.strip()
        if not plain or plain.startswith("#"):
            continue
        match = _LINE.fullmatch(plain)
        try:
            if match is None:
                raise ValueError
            check({match[1]: match[2]})
        except ValueError:
            raise ValueError(f"line {number} is not a header such as name: value") from None
        found[match[1].lower()] = match[2]
    return found


class HeadersFile:
    """Headers from a file, which is read again when it changed.

    A file that vanished, or that is not well-formed, leaves the last good headers in force, and is said once.

    Args:
        path: Of the file; lines as `parse_headers` reads them.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._seen: object = None
        self._headers: dict[str, str] = {}
        self._trouble = Trouble()

    def __repr__(self) -> str:
        return f"<HeadersFile {self._path} with {len(self._headers)} headers>"

    def __call__(self) -> Mapping[str, str]:
        """The headers as of now."""
        try:
            # Followed: a secret that Kubernetes mounts is a link, which is turned to another file.
            status = os.stat(self._path)  # noqa: PTH116 - as given
            seen = (status.st_mtime_ns, status.st_ino, status.st_dev, status.st_size)
            if seen == self._seen:
                return self._headers
            if not S_ISREG(status.st_mode):
                raise ValueError("it is no regular file")
            with open(self._path, "rb") as file:  # noqa: PTH123 - as given
                raw = file.read(MAX_FILE + 1)
            if not 0 < len(raw) <= MAX_FILE:
                # An empty one is about to be written.
                raise ValueError(f"it has more than {MAX_FILE} bytes" if raw else "it is empty")
            self._headers = parse_headers(raw.decode("utf-8"))
        except OSError as error:
            self._trouble.say(HEADERS_FILE, f"{self._path}: {error.strerror or type(error).__name__}")
        except UnicodeDecodeError:
            self._trouble.say(HEADERS_FILE, f"{self._path}: it is not text in UTF-8")
        except ValueError as error:
            self._trouble.say(HEADERS_FILE, f"{self._path}: {error}")
        else:
            self._seen = seen
            self._trouble.over()
        return self._headers


@dataclass(frozen=True, slots=True)
class Token:
    """What a login gave.

    Attributes:
        text: The token itself.
        life_s: Seconds from the login until it ends; None when it does not say.
    """

    text: str = field(repr=False)
    life_s: float | None = None


def request_of(user: str, password: str, workspace: str | None) -> bytes:
    """The JSON that logs in: `username`, `password`, and `workspace` where there is one."""
    asked = {"username": user, "password": password}
    return json.dumps({**asked, "workspace": workspace} if workspace else asked).encode()


def token_of(body: bytes, now: float) -> Token | None:
    """Read the answer to a login: JSON with `access_token` (or `token`, `accessToken`, `jwt`, `id_token`), at its top
    or in its `data`.

    The life of the token is the shorter one of `expires_in` and the time that a JWT names in `exp`.

    Args:
        now: Unix time in seconds.

    Returns:
        None when there is no token in it that a header can hold.
    """
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return None
    places = [answer, answer.get("data")] if isinstance(answer, dict) else []
    for place in places:
        if not isinstance(place, dict):
            continue
        for name in _TOKENS:
            text = place.get(name)
            if isinstance(text, str) and re.fullmatch(r"[!-~]{1,16384}", text):
                ends = expiry_of(text)
                lives = [] if ends is None else [ends - now]
                if (life_s := _seconds(place.get("expires_in"))) is not None:
                    lives.append(life_s)
                return Token(text, min(lives) if lives else None)
    return None


def expiry_of(jwt: str) -> float | None:
    """When a JWT ends, as Unix time in seconds; None for what is no JWT or names no end. Nothing is verified: that is
    the server's."""
    parts = jwt.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = json.loads(urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, RecursionError):
        return None
    return _seconds(claims.get("exp")) if isinstance(claims, dict) else None


def _seconds(value: object) -> float | None:
    try:
        number = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else -1.0
    except (ValueError, OverflowError):
        return None
    return number if 0 <= number < 1e15 else None


Ask = Callable[[bytes, float], "tuple[int, bytes] | Outcome"]
"""Sends the JSON of a login and gives the status and the content of the answer, or why there is none. Takes a time of
the clock by which to be back."""


class Login:
    """A token from a login, fetched ahead of its end and after a server has refused it.

    While no new one can be had, the old one is used until it ends. All senders of a process share one; threads may use
    it at the same time, and it survives a fork.

    Args:
        place: Where to log in, as it may be shown.
        request: What `request_of` gives.
        ask: Sends it.
        clock: Seconds that do not go back.
        now: Unix time in seconds.
    """

    def __init__(
        self,
        place: str,
        request: bytes,
        ask: Ask,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._place = place
        self._request = request
        self._ask = ask
        self._clock = clock
        self._now = now
        self._token: Token | None = None
        self._since = 0.0
        self._refused = False
        self._failures = 0
        self._not_before = 0.0
        self._why: Outcome | None = None
        self._trouble = Trouble()
        self._lock = threading.Lock()
        self._pid = os.getpid()

    def __repr__(self) -> str:
        return f"<Login at {self._place}, {'no token' if self._token is None else 'a token'}>"

    def headers(self) -> Mapping[str, str]:
        """The header with the token; none where there is no token."""
        token = self._token
        return {} if token is None or self._ended(token) else {"authorization": f"Bearer {token.text}"}

    def prepare(self, until: float) -> Outcome | None:
        """See to it that there is a token, logging in where it is time for that.

        Args:
            until: A time of the clock by which to be back.

        Returns:
            Why nothing can be sent; None when there is a token that is worth a try.
        """
        if self._pid != os.getpid():
            # Another thread of the parent may have held it.
            self._lock, self._pid = threading.Lock(), os.getpid()
        if not self._lock.acquire(timeout=max(0.0, until - self._clock())):
            return RetryAfter(None, "another thread logs in")
        try:
            if self._due() and self._clock() >= self._not_before:
                self._log_in(until)
            token = self._token
            if token is not None and not self._ended(token):
                return None
            return self._why or RetryAfter(None, f"no token from {self._place}")
        finally:
            self._lock.release()

    def refused(self, used: Mapping[str, str]) -> bool:
        """A server refused the token; whether another one is worth a try, or is there already.

        Args:
            used: What `headers` gave for the request.
        """
        if used != self.headers():
            return True
        self._refused = self._token is not None and self._clock() - self._since >= PATIENCE_S
        return self._refused and self._clock() >= self._not_before

    def _due(self) -> bool:
        token = self._token
        if token is None or self._refused:
            return True
        return token.life_s is not None and self._clock() - self._since >= token.life_s * EARLY

    def _ended(self, token: Token) -> bool:
        return token.life_s is not None and self._clock() - self._since >= token.life_s

    def _log_in(self, until: float) -> None:
        started = self._clock()
        why = self._fetched(min(until, started + LOGIN_TIMEOUT_S))
        if why is None:
            self._since, self._refused, self._failures, self._why = started, False, 0, None
            self._trouble.over()
            return
        self._failures += 1
        self._not_before = self._clock() + min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2.0 ** min(self._failures - 1, 10))
        if isinstance(why, RetryAfter) and why.after_s:
            self._not_before = max(self._not_before, self._clock() + why.after_s)
        self._why = why
        self._trouble.say(LOGIN, getattr(why, "why", ""))

    def _fetched(self, until: float) -> Outcome | None:
        answer = self._ask(self._request, until)
        if not isinstance(answer, tuple):
            return RetryAfter(getattr(answer, "after_s", None), f"{self._place}: {getattr(answer, 'why', '')}")
        status, body = answer
        if not 200 <= status < 300:
            # Without the content: a server may well repeat what it was sent.
            why = f"{self._place} answers HTTP {status}"
            lasting = 400 <= status < 500 and status not in (408, 425, 429)
            return Unauthorised(why) if lasting else RetryAfter(None, why)
        token = token_of(body, self._now())
        if token is None:
            return Unauthorised(f"{self._place} answers without a token")
        if token.life_s is not None and token.life_s <= 0:
            return Unauthorised(f"{self._place} gives a token that has ended already; compare the clocks")
        self._token = token
        return None


class Sender(Protocol):
    """What sends one request."""

    raw_bytes: int
    wire_bytes: int

    def send(self, body: bytes, lane: Lane, deadline: float | None = None, frames: str = "") -> Outcome: ...

    def close(self) -> None: ...


class LoggedIn:
    """A sender that logs in first, and once more when its token is refused.

    Args:
        sender: Sends, with the headers of the login.
        login: Shared with other senders.
        timeout_s: For all of it.
    """

    def __init__(
        self, sender: Sender, login: Login, *, timeout_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._sender = sender
        self._login = login
        self._timeout_s = timeout_s
        self._clock = clock

    def __repr__(self) -> str:
        return f"<LoggedIn {self._sender!r} {self._login!r}>"

    @property
    def raw_bytes(self) -> int:
        """Of the last request, before compression."""
        return self._sender.raw_bytes

    @property
    def wire_bytes(self) -> int:
        """Of the last request, after compression."""
        return self._sender.wire_bytes

    def send(self, body: bytes, lane: Lane, deadline: float | None = None, frames: str = "") -> Outcome:
        """Send one request, as the sender does it."""
        until = self._clock() + self._timeout_s
        if deadline is not None:
            until = min(until, deadline)
        for last in (False, True):
            if (why := self._login.prepare(until)) is not None:
                return why
            used = self._login.headers()
            outcome = self._sender.send(body, lane, until, frames)
            if last or not isinstance(outcome, Unauthorised) or not self._login.refused(used):
                break
        return outcome

    def close(self) -> None:
        """Close the sender."""
        self._sender.close()
