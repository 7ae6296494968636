"""Pattern identity against Drain3: how fast, and how well grouped, in the same run.

    python benchmarks/patterns.py [--data DIR] [--rounds N]

`--data` is a folder of `<System>/<anything>.csv` with the columns Content and EventTemplate. Without it the benchmark
makes its own logs, of four kinds of system. For each system it prints the speed of Weir's text key as a multiple of
Drain3's with its default configuration (in memory), in two phases:

cold    the first messages, with nothing learnt or cached
steady  later messages of the same kinds, in another order and with other numbers and identifiers

and for both the share of messages whose group is exactly the true one (GA), and groups found per true group (DUP).
Both are driven by turns in every round and the best round counts, in CPU time of this thread.
"""

from __future__ import annotations

import argparse
import csv
import gc
import random
import re
import statistics
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from pathlib import Path
from typing import NamedTuple

from drain3 import TemplateMiner  # type: ignore[import-untyped]
from drain3.template_miner_config import TemplateMinerConfig  # type: ignore[import-untyped]

from otelweir.pipeline.sample.logs.pattern import Pattern
from otelweir.pipeline.sample.logs.text import TextPatterns

Finder = Callable[[str], Hashable]


def weir() -> Finder:
    """Weir's text key as the hot path uses it, with the template of an answer as an attribute."""
    find = TextPatterns().find
    find.template = _template  # type: ignore[attr-defined]
    return find


def _template(pattern: Pattern) -> str:
    return pattern.template


class drain3:  # noqa: N801 - the name of the contender
    """Drain3 as it comes: default configuration, no masks, no persistence."""

    def __init__(self) -> None:
        self._miner = TemplateMiner(config=TemplateMinerConfig())

    def __call__(self, message: str) -> int:
        return int(self._miner.add_log_message(message)["cluster_id"])

    def template(self, cluster: int) -> str:
        return str(self._miner.drain.id_to_cluster[cluster].get_template())


class Logs(NamedTuple):
    """The logs of one system: messages at first sight with the template each was made from, and later ones."""

    name: str
    first: list[str]
    truth: list[str]
    later: list[str]


# --- logs of our own ------------------------------------------------------------------------------------------------
# Each line is a template; `{...}` names what fills it in. Rare ones are as important as frequent ones, so how often a
# template occurs falls with its place in the list.

TEMPLATES = {
    "web": """
        {ip} - "GET {path} HTTP/1.1" {status} {n}
        {ip} - "POST {path} HTTP/1.1" {status} {n}
        request {uuid} finished in {ms}
        cache miss for key {hex}
        cache hit for key {hex}
        user {n} signed in from {ip}
        user {n} signed out
        query took {ms}: SELECT * FROM orders WHERE id = {n}
        payment {uuid} of {n} cents accepted
        payment {uuid} declined: insufficient funds
        payment {uuid} declined: card expired
        Not Found: {path}
        worker {n} booted with pid {n}
        worker {n} exiting, {n} requests served
        retrying {url} in {ms}, attempt {n} of {n}
        rate limit reached for {ip}
        session {hex} expired
        template '{word}' rendered in {ms}
        configuration reloaded
        shutting down
    """,
    "daemon": """
        Accepted publickey for {word} from {ip} port {n}
        Failed password for {word} from {ip} port {n}
        session opened for user {word} by (uid={n})
        session closed for user {word}
        connection from {ip} closed [preauth]
        lease {ip} renewed for {mac} until {time}
        lease {ip} expired
        authentication failure; logname= uid={n} tty=ssh ruser= rhost={ip}
        received signal {n}, address={hex0x}
        mounted {path} read-only
        unmounted {path}
        clock synchronized to {ip}, stratum {n}
        disk {path} is {n}% full
        ALERT exited with [{n}]
        reloading configuration from {path}
        startup succeeded
        shutdown succeeded
    """,
    "batch": """
        Running task {n} in stage {n} (TID {n})
        Finished task {n} in stage {n} (TID {n}). {n} bytes result sent to driver
        Block rdd_{n}_{n} stored as values in memory (estimated size {size}, free {size})
        Found block rdd_{n}_{n} locally
        Received block blk_{n} of size {n} from /{ip}
        PacketResponder {n} for block blk_{n} terminating
        attempt_{n}_{n}_m_{n} transitioned from NEW to RUNNING
        attempt_{n}_{n}_m_{n} transitioned from RUNNING to SUCCEEDED
        attempt_{n}_{n}_m_{n} transitioned from RUNNING to FAILED
        Progress of attempt_{n}_{n}_m_{n} is : 0.{n}
        Saved output of task '{uuid}' to {url}
        Times: total = {n}, boot = {n}, init = {n}
        Deleting {path}
        Resources: <memory:{n}, cores:{n}>
        Error loading {path}: invalid or missing image
        Error loading {path}: Permission denied
        Job finished
    """,
    "kernel": """
        iar {hex} dear {hex}
        {n} floating point alignment exceptions
        {n} integer alignment exceptions
        page fault at {hex0x} ip {hex0x} error {n}
        CE sym {n}, at {hex0x}, mask {hex0x}
        {n} correctable error(s) detected on rank {n}, bit {n}
        instruction address: {hex0x}
        data address: {hex0x}
        eth{n}: link up, {n} Mbps, mac {mac}
        eth{n}: link down
        usb {n}-{n}: new device number {n}
        Memory: {n}k/{n}k available ({n}k code, {n}k reserved)
        cpu {n}: temperature {n} above threshold
        cpu {n}: temperature normal
        generating core.{n}
        instruction cache parity error corrected
        data cache parity error corrected
        kernel terminated for reason {n}
    """,
}

_WORDS = ["root", "ann", "bob", "cyd", "backup", "www", "mail", "postgres", "guest", "admin"]

FILL: dict[str, Callable[[random.Random], str]] = {
    "n": lambda rnd: str(rnd.randrange(10 ** rnd.choice((1, 1, 2, 2, 3, 5, 9)))),
    "ip": lambda rnd: ".".join(str(rnd.randrange(256)) for _ in range(4)),
    "mac": lambda rnd: ":".join(f"{rnd.randrange(256):02x}" for _ in range(6)),
    "hex": lambda rnd: f"{rnd.getrandbits(32):08x}",
    "hex0x": lambda rnd: f"0x{rnd.getrandbits(32):08x}",
    "uuid": lambda rnd: "-".join(f"{rnd.getrandbits(4 * n):0{n}x}" for n in (8, 4, 4, 4, 12)),
    "ms": lambda rnd: f"{rnd.randrange(2000)} ms" if rnd.random() < 0.8 else f"{rnd.random() * 9:.1f} s",
    "size": lambda rnd: f"{rnd.random() * 900:.1f} {rnd.choice(('KB', 'MB', 'GB'))}",
    "status": lambda rnd: rnd.choice(("200", "200", "201", "404", "500")),
    "time": lambda rnd: f"{rnd.randrange(24):02}:{rnd.randrange(60):02}:{rnd.randrange(60):02}",
    "word": lambda rnd: rnd.choice(_WORDS),
    "path": lambda rnd: "/" + "/".join(rnd.choices(("var", "srv", "data", "api", "v1", "x", "reports"), k=3)),
    "url": lambda rnd: f"https://host-{rnd.randrange(30)}.example.com/{rnd.getrandbits(32):08x}",
}


def made_up(name: str, n: int, rnd: random.Random) -> Logs:
    templates = [line.strip() for line in TEMPLATES[name].strip().splitlines()]
    shares = [1 / (place + 1) for place in range(len(templates))]

    def draw(n: int) -> list[tuple[str, str]]:
        truth = rnd.choices(templates, shares, k=n - len(templates)) + templates
        rnd.shuffle(truth)
        return [(re.sub(r"\{(\w+)\}", lambda m: FILL[m[1]](rnd), template), template) for template in truth]

    first = draw(n)
    later = draw(4 * n)
    return Logs(name, [m for m, _ in first], [t for _, t in first], [m for m, _ in later])


# --- logs of others -------------------------------------------------------------------------------------------------

_VARIABLE = re.compile(r"(?<![0-9A-Za-z])(?=[a-f]*[0-9])[0-9a-f]{6,}(?![0-9A-Za-z])|[0-9]")


def with_other_numbers(message: str, rnd: random.Random) -> str:
    """The message with other digits, and other letters too where they are part of a hexadecimal number."""

    def other(match: re.Match[str]) -> str:
        return "".join(rnd.choice("0123456789" if c.isdigit() or match[0].isdigit() else "abcdef") for c in match[0])

    return _VARIABLE.sub(other, message)


def recorded(folder: Path, rnd: random.Random) -> Logs:
    rows = [
        row for file in sorted(folder.glob("*.csv")) for row in csv.DictReader(file.open(newline="", encoding="utf-8"))
    ]
    first = [row["Content"] for row in rows]
    later = [with_other_numbers(message, rnd) for message in first * 4]
    rnd.shuffle(later)
    return Logs(folder.name, first, [row["EventTemplate"] for row in rows], later)


# --- measuring ------------------------------------------------------------------------------------------------------


def cpu_s(find: Finder, messages: Iterable[str]) -> float:
    gc.collect()
    start = time.thread_time()
    for message in messages:
        find(message)
    return time.thread_time() - start


def best_times(makers: dict[str, Callable[[], Finder]], logs: Logs, rounds: int) -> dict[tuple[str, str], float]:
    """Seconds of the best round, by contender and phase."""
    best: dict[tuple[str, str], float] = {}
    for turn in range(rounds):
        names = list(makers) if turn % 2 else list(reversed(makers))
        for name in names:
            find = makers[name]()
            for phase, messages in (("cold", logs.first), ("steady", logs.later)):
                took = cpu_s(find, messages)
                best[name, phase] = min(took, best.get((name, phase), took))
    return best


def grouped(find: Finder, logs: Logs) -> tuple[float, float]:
    """The share of messages in exactly the true group, and groups found per true group."""
    found = [find(message) for message in logs.first]
    both = Counter(zip(found, logs.truth, strict=True))
    sizes, true_sizes = Counter(found), Counter(logs.truth)
    right = sum(n for (group, truth), n in both.items() if n == sizes[group] == true_sizes[truth])
    return right / len(found), len(sizes) / len(true_sizes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a folder of <System>/*.csv with Content and EventTemplate")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()

    rnd = random.Random(3)  # the same logs on every run
    if options.data:
        systems = [recorded(folder, rnd) for folder in sorted(options.data.iterdir()) if any(folder.glob("*.csv"))]
    else:
        systems = [made_up(name, 2000, rnd) for name in TEMPLATES]
    makers: dict[str, Callable[[], Finder]] = {"weir": weir, "drain3": drain3}
    ratios: dict[str, list[float]] = {"cold": [], "steady": []}
    print(f"{'':<14}{'speed, weir / drain3':>22}{'GA':>16}{'DUP':>16}")
    print(f"{'system':<14}{'cold':>11}{'steady':>11}{'weir':>8}{'drain3':>8}{'weir':>8}{'drain3':>8}")
    for logs in systems:
        best = best_times(makers, logs, options.rounds)
        for phase, of_systems in ratios.items():
            of_systems.append(best["drain3", phase] / best["weir", phase])
        (ga, dup), (drain_ga, drain_dup) = (grouped(make(), logs) for make in makers.values())
        print(
            f"{logs.name:<14}{ratios['cold'][-1]:>10.1f}x{ratios['steady'][-1]:>10.1f}x"
            f"{ga:>8.3f}{drain_ga:>8.3f}{dup:>8.2f}{drain_dup:>8.2f}"
        )
    cold, steady = (statistics.median(of_systems) for of_systems in ratios.values())
    print(f"{'median':<14}{cold:>10.1f}x{steady:>10.1f}x     goal: cold 3x, steady 10x, never below 1x")


if __name__ == "__main__":
    main()
