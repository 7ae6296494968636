"""A budget shared fairly: rare patterns keep everything, frequent ones an equal share of what is left."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

K = TypeVar("K")


def fair_shares(demands: Mapping[K, float], goal: float) -> dict[K, float]:
    """Divide a goal among demands, none getting more than it asks for.

    Args:
        demands: What each key asks for; 0 or more.
        goal: What there is to give; 0 or more.

    Returns:
        By key; sums to the goal, or to all demands where these are less.

    Source: TotalThroughput in honeycombio/dynsampler-go gives each key an equal share of the goal; here, as in max-min
    fairness (Bertsekas and Gallager, Data Networks, 6.5.2), what a key does not need goes to the others.
    """
    shares: dict[K, float] = {}
    left, waiting = goal, len(demands)
    for key, demand in sorted(demands.items(), key=lambda item: item[1]):
        shares[key] = share = min(demand, left / waiting)
        left -= share
        waiting -= 1
    return shares
