"""A policy that is fetched from a URL, and asked for again."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from otelweir import errors
from otelweir.pipeline.sample.logs.policy import parse
from otelweir.pipeline.sample.logs.policy_cache import PolicyCache
from otelweir.pipeline.sample.logs.policy_fetch import Failed, Fetch, Fetched, Unchanged, shown_url
from otelweir.pipeline.sample.logs.rules import Overlay
from otelweir.variables import Secret

_FIRST_RETRY_S = 5.0


class PolicyUrl:
    """The last good policy of a URL.

    Args:
        refresh_s: How long to wait between two questions; each wait is up to a tenth shorter or longer, so that the
            processes of a fleet do not ask in step. After a failure the wait is shorter: it begins at 5 s and doubles.
        fetch: Asks once.
        quiet: Keeps instrumentations from tracing the request.
        random: Gives a number from 0 to 1.

    Attributes:
        overlay: None until there was a good one.
    """

    def __init__(
        self,
        url: str,
        key: str | None,
        refresh_s: float,
        cache: PolicyCache,
        fetch: Fetch,
        quiet: Callable[[], AbstractContextManager[object]],
        random: Callable[[], float],
    ) -> None:
        self.overlay: Overlay | None = None
        self.name = shown_url(url)
        self._url = url
        self._key = Secret(key) if key else None
        self._refresh_s = refresh_s
        self._cache = cache
        self._fetch = fetch
        self._quiet = quiet
        self._random = random
        self._etag: str | None = None
        self._stored: tuple[bytes, str | None] | None = None
        self._failures = 0
        self._trouble = errors.Trouble()

    def __repr__(self) -> str:
        return f"<PolicyUrl {self.name} {'good once' if self.overlay else 'never good'}, {self._trouble!r}>"

    def recall(self) -> bool:
        """Take the policy that the disk remembers; True when there is one. Does not touch the network."""
        cached = self._cache.load()
        if cached is None:
            return False
        try:
            self.overlay = parse(cached.body, self.name).overlay(self.name)
        except errors.PolicyError as error:
            # It was good when it was stored: another version of Weir, or no pyyaml here.
            self._cache.set_aside(f"the policy in it is not valid here ({error.detail.splitlines()[0]})")
            return False
        self._etag = cached.etag
        self._stored = cached.body, cached.etag
        return True

    def ask(self) -> tuple[bool, float]:
        """Ask once. Whether that changed the policy, and how many seconds to wait before the next time."""
        with self._quiet():
            answer = self._fetch(self._url, self._etag, self._key)
        changed = False
        match answer:
            case Failed(why, after_s):
                self._trouble.say(errors.POLICY_UNREACHABLE, f"{self.name}: {why}")
                return False, self._retry(after_s)
            case Fetched(body, etag):
                try:
                    overlay = parse(body, self.name).overlay(self.name)
                except errors.PolicyError as error:
                    self._trouble.say(error.problem, error.detail)
                    return False, self._retry(None)
                changed = overlay != self.overlay
                self.overlay = overlay
                self._etag = etag
                if self._stored != (body, etag) and self._cache.store(body, etag):
                    self._stored = body, etag
            case Unchanged():
                pass
        self._failures = 0
        self._trouble.over()
        return changed, self._jittered(self._refresh_s)

    def staggered(self) -> float:
        """A wait for a process that was just forked: its siblings must not ask all at once."""
        return self._random() * self._refresh_s

    def _retry(self, after_s: float | None) -> float:
        self._failures += 1
        wait_s = min(self._refresh_s, _FIRST_RETRY_S * 2 ** min(self._failures - 1, 20))
        # Jitter only upwards from what the server asked for: it must not be asked sooner.
        return max(self._jittered(wait_s), (after_s or 0.0) * (1 + 0.1 * self._random()))

    def _jittered(self, wait_s: float) -> float:
        return wait_s * (0.9 + 0.2 * self._random())
