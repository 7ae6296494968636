"""How long to wait before a request is sent again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_MOST_DOUBLINGS: Final = 60
_SPREAD: Final = 0.1
_MOST_SPREAD_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential backoff with full jitter, without an end: data waits on disk, not in a queue that overflows.

    Full jitter takes a random part of the whole wait, so that processes which failed together do not return together.

    Source: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/

    Attributes:
        base_s: The longest wait after the first failure; it doubles with every further one.
        cap_s: The longest wait of all.
    """

    base_s: float = 1.0
    cap_s: float = 60.0

    def wait_s(self, failures: int, chance: float, after_s: float | None = None) -> float:
        """Seconds to wait, never fewer than the server asked for.

        Args:
            failures: Failures in a row so far, this one included; at least 1.
            chance: A random number from 0 to 1.
            after_s: What the server asked for; a zero is no request.
        """
        if after_s:
            # Others were told the same second: a little later than asked, but each at a moment of its own.
            return after_s + chance * min(_MOST_SPREAD_S, _SPREAD * after_s)
        # The bound on the power keeps it a number after a year of outage.
        return chance * min(self.cap_s, self.base_s * 2.0 ** min(max(failures, 1) - 1, _MOST_DOUBLINGS))
