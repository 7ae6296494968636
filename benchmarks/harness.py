"""What the benchmarks share: contenders measured by turns, medians of rounds, ratios against a peer of the same run."""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple


class Row(NamedTuple):
    """One contender against a peer.

    Attributes:
        name: The contender.
        peer: What it is compared with.
        ratio: Median over the rounds of its time by the peer's.
        target: What the ratio should be at most; None where there is no promise.
        median_us: Median time of one operation, in microseconds.
    """

    name: str
    peer: str
    ratio: float
    target: float | None
    median_us: float


def by_turns(contenders: Mapping[str, Callable[[int], float]], rounds: int, times: int) -> dict[str, list[float]]:
    """Microseconds an operation of each contender in each round.

    Args:
        contenders: Each does an operation so many times and returns the seconds it took.
        rounds: How often each has its turn.
        times: Operations in a turn.
    """
    found: dict[str, list[float]] = {name: [] for name in contenders}
    for run in contenders.values():
        run(times // 10)
    for _ in range(rounds):
        for name, run in contenders.items():
            gc.collect()
            found[name].append(run(times) / times * 1e6)
    return found


def ratio(found: Mapping[str, list[float]], name: str, peer: str, target: float | None = None) -> Row:
    """A contender against a peer, round by round: the machine's moods hit both."""
    pairs = [mine / theirs for mine, theirs in zip(found[name], found[peer], strict=True)]
    return Row(name, peer, statistics.median(pairs), target, statistics.median(found[name]))


def timed(work: Callable[[], object]) -> float:
    """CPU seconds of this thread that some work takes."""
    began = time.thread_time()
    work()
    return time.thread_time() - began


def arguments(description: str | None, **defaults: int) -> argparse.Namespace:
    """The options that every benchmark has, and whole numbers of its own."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    for name, default in defaults.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=f"default {default}")
    return parser.parse_args()


def report(rows: list[Row], as_json: bool, unit: str = "µs") -> None:
    """Print the rows as a table, or as JSON."""
    if as_json:
        print(json.dumps([row._asdict() for row in rows], indent=2))
        return
    width = max(len(row.name) for row in rows)
    print(f"{'':{width}}  {unit:>9}  ratio  at most  compared with")
    for row in rows:
        target = "" if row.target is None else f"{row.target:.2f}"
        mark = "" if row.target is None or row.ratio <= row.target else "  ← above"
        print(f"{row.name:{width}}  {row.median_us:9.2f}  {row.ratio:5.2f}  {target:>7}  {row.peer}{mark}")
    sys.stdout.flush()
