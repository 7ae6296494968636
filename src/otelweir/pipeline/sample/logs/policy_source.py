"""Where the effective policy comes from while the service runs: settings, above them the file, above it the URL.

Import this file only when there is a file or a URL: it brings pydantic, and with a URL an HTTP client.
"""

from __future__ import annotations

import os
import random
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Final

from otelweir import errors
from otelweir.pipeline.sample.logs.policy_file import PolicyFile
from otelweir.pipeline.sample.logs.rules import Rules

if TYPE_CHECKING:
    from otelweir.pipeline.sample.logs.policy_url import PolicyUrl

POLL_S: Final = 1.0
"""How often the file is looked at."""


class PolicySource:
    """Watches the file and the URL and tells every change of the effective policy.

    `start` reads what the disk has, the file and the URL's cache, before it returns; only the thread touches the
    network. The thread is a daemon, is made anew in a forked child, and leaves nothing to do at exit. A source that is
    bad or missing keeps its last good policy and warns.

    Args:
        base: The policy that the settings make.
        on_change: Told the effective policy whenever it differs from the one before, the first time from `base`.
        file: The policy file, if there is one.
        url: The policy URL, if there is one.
        clock: Monotonic seconds.

    Attributes:
        rules: The effective policy.
    """

    def __init__(
        self,
        base: Rules,
        on_change: Callable[[Rules], object],
        *,
        file: PolicyFile | None = None,
        url: PolicyUrl | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.rules = base
        self._base = base
        self._on_change = on_change
        self._file = file
        self._url = url
        self._clock = clock
        self._ask_at = clock()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._survives_forks = False

    @classmethod
    def of(
        cls,
        base: Rules,
        on_change: Callable[[Rules], object],
        *,
        file: str | None = None,
        url: str | None = None,
        key: str | None = None,
        refresh_s: float = 300.0,
        cache: str | None = None,
        quiet: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> PolicySource:
        """A source with a real file, network, disk, clock and chance.

        Args:
            base: The policy that the settings make.
            on_change: Told the effective policy.
            file: Path of a policy file.
            url: Where to fetch a policy.
            key: Bearer key for the URL.
            refresh_s: How often the URL is asked.
            cache: Folder for the last good policy of the URL; None for `otelweir` in the user's cache folder.
            quiet: Makes the context in which the URL is asked; what suppresses instrumentation belongs there.
        """
        from_url = None
        if url:
            # Only here: they bring an HTTP client.
            from otelweir.pipeline.sample.logs.policy_cache import PolicyCache, default_folder
            from otelweir.pipeline.sample.logs.policy_fetch import fetch
            from otelweir.pipeline.sample.logs.policy_url import PolicyUrl

            stored = PolicyCache(cache or default_folder(os.environ), url)
            from_url = PolicyUrl(url, key, refresh_s, stored, fetch, quiet, random.random)
        return cls(base, on_change, file=PolicyFile(file) if file else None, url=from_url)

    def __repr__(self) -> str:
        sources = [source for source in (self._file, self._url) if source]
        return f"<PolicySource {sources}, {'running' if self._thread else 'not running'}>"

    def start(self) -> None:
        """Read what the disk has, then watch. Does nothing without a file and a URL."""
        if self._thread is not None or not (self._file or self._url):
            return
        if self._file:
            self._file.look()
        if self._url:
            self._url.recall()
        self._tell()
        self._watch()
        self._survive_forks()

    def stop(self, timeout_s: float = 1.0) -> None:
        """Stop watching. A request that is under way is left to itself after the timeout."""
        self._stopped.set()
        thread, self._thread = self._thread, None
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout_s)

    def turn(self) -> float:
        """Do what is due; the seconds until something is due again. The thread calls this over and over."""
        changed = self._file.look() if self._file else False
        if self._url and self._clock() >= self._ask_at:
            if changed:
                self._tell()  # an answer may be long in coming
            news, wait_s = self._url.ask()
            changed = changed or news
            self._ask_at = self._clock() + wait_s
        if changed:
            self._tell()
        wait_s = max(0.0, self._ask_at - self._clock()) if self._url else POLL_S
        return min(wait_s, POLL_S) if self._file else wait_s

    def _tell(self) -> None:
        rules = self._base
        for source in (self._file, self._url):
            if source and source.overlay:
                rules = source.overlay.over(rules)
        if rules != self.rules:
            self.rules = rules
            self._on_change(rules)

    def _watch(self) -> None:
        # A new event, not a cleared one: an old thread may still be in a request, and must end after it.
        self._stopped = stopped = threading.Event()

        def watch() -> None:
            wait_s = 0.0
            while not stopped.wait(wait_s):
                try:
                    wait_s = self.turn()
                except Exception as error:  # noqa: BLE001 - a mistake of ours must not end the watch
                    errors.warn(errors.POLICY_UNREADABLE, f"reading it failed: {type(error).__name__}")
                    wait_s = POLL_S

        self._thread = threading.Thread(target=watch, name="weir-policy", daemon=True)
        self._thread.start()

    def _survive_forks(self) -> None:
        if self._survives_forks or not hasattr(os, "register_at_fork"):
            return
        self._survives_forks = True
        # What is registered stays for the life of the process; the source need not.
        in_child = weakref.WeakMethod(self._in_child)
        os.register_at_fork(after_in_child=lambda: (restart := in_child()) and restart())

    def _in_child(self) -> None:
        """Threads do not survive a fork."""
        if self._thread is None:
            return
        if self._url and self._url.overlay:
            self._ask_at = self._clock() + self._url.staggered()
        self._watch()
