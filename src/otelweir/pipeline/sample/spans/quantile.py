"""How long each route usually takes: an estimate of a quantile, in a bounded place, that forgets the distant past.

A route's durations are counted in buckets whose borders grow by a constant factor, so the estimate is within that
factor of the true quantile. When a route has many counts, all are halved: what was long ago weighs less and less.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Final

GROWTH: Final = 1.1
"""Each bucket's upper border by its lower one: the estimate is at most a tenth too high."""

LEAST_COUNT: Final = 100
"""Durations of a route before anything can be called slow."""

MAX_COUNT: Final = 2000
"""Durations at which all counts of a route are halved."""

_LOG_GROWTH: Final = math.log(GROWTH)
_REFRESH: Final = 20
"""Durations after which the estimate is made anew."""


class _Route:
    __slots__ = ("buckets", "count", "fresh", "limit_s")

    def __init__(self) -> None:
        self.buckets: dict[int, float] = {}
        self.count = 0.0
        self.fresh = 0
        self.limit_s = math.inf


class Usual:
    """The usual durations by route. Not for several threads at once.

    Args:
        quantile: Above 0 and below 1.
        max_routes: Routes that are told apart; what was not seen for longest goes first.
    """

    def __init__(self, quantile: float, max_routes: int = 500) -> None:
        self._quantile = quantile
        self._max_routes = max_routes
        self._routes: OrderedDict[str, _Route] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Usual {self._quantile:g} of {len(self._routes)} routes>"

    def is_slow(self, route: str, duration_s: float) -> bool:
        """Whether a duration is beyond the quantile of what came before it, which it joins."""
        found = self._routes.get(route)
        if found is None:
            if len(self._routes) >= self._max_routes:
                self._routes.popitem(last=False)
            found = self._routes[route] = _Route()
        else:
            self._routes.move_to_end(route)
        slow = found.count >= LEAST_COUNT and duration_s > found.limit_s
        self._add(found, duration_s)
        return slow

    def limit_s(self, route: str) -> float:
        """The duration beyond which a trace of the route is slow; infinite while too little is known."""
        found = self._routes.get(route)
        return found.limit_s if found is not None and found.count >= LEAST_COUNT else math.inf

    def _add(self, route: _Route, duration_s: float) -> None:
        bucket = math.ceil(math.log(max(duration_s, 1e-6)) / _LOG_GROWTH)
        route.buckets[bucket] = route.buckets.get(bucket, 0.0) + 1
        route.count += 1
        route.fresh += 1
        if route.count >= MAX_COUNT:
            route.buckets = {key: half for key, count in route.buckets.items() if (half := count / 2) >= 0.5}
            route.count = sum(route.buckets.values())
        if route.fresh >= _REFRESH or route.count == LEAST_COUNT:
            route.fresh = 0
            wanted = self._quantile * route.count
            for key in sorted(route.buckets):
                wanted -= route.buckets[key]
                if wanted <= 0:
                    route.limit_s = GROWTH**key
                    break
