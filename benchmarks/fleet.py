"""A fleet on paper: what collectors, brokers and a store have to carry for so many services, and what it costs.

    python -m benchmarks.fleet [--services N] [--records-s R] [--kept SHARE] [--outage-h H] [--json] ...

Two parts. The first is the hash ring of the collector's `load_balancing` exporter, computed as the exporter computes
it: how uneven the gateways' shares are, and how many traces change their gateway when one comes. The second is
arithmetic over capacities that were measured elsewhere (`python -m benchmarks.sidecar`) and assumed prices, of which
every one is an option. Nothing here is measured; `docs/scale.md` says what the numbers mean.
"""

from __future__ import annotations

import argparse
import bisect
import json
import math
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Final

POSITIONS: Final = 131_071
"""Positions on the ring of the `load_balancing` exporter."""

POINTS: Final = 200
"""Points on the ring that each gateway has."""

_PROBES: Final = 10

_SECONDS_A_MONTH: Final = 30 * 86_400


# --- the ring -------------------------------------------------------------------------------------------------------


def ring(gateways: Sequence[str]) -> tuple[list[int], list[str]]:
    """The points of the ring in their order, and whose they are.

    Source: `exporter/loadbalancingexporter` of opentelemetry-collector-contrib, v0.159.0.
    """
    wanted = sorted(
        (hashed % POSITIONS, hashed, gateway)
        for gateway in gateways
        for hashed in (zlib.crc32(gateway.encode() + number.to_bytes(4, "little")) for number in range(POINTS))
    )
    owners: dict[int, str] = {}
    for position, _, gateway in wanted:
        for step in range(_PROBES):
            if (free := (position + step) % POSITIONS) not in owners:
                owners[free] = gateway
                break
    points = sorted(owners)
    return points, [owners[point] for point in points]


def owner(points: list[int], owners: list[str], position: int) -> str:
    """The gateway of a position: whose point comes next."""
    return owners[bisect.bisect_left(points, position) % len(points)]


def shares(gateways: Sequence[str]) -> Counter[str]:
    """How many positions of the ring each gateway has; trace ids fall on all of them alike."""
    points, owners = ring(gateways)
    found: Counter[str] = Counter(dict.fromkeys(gateways, 0))
    for index, (point, whose) in enumerate(zip(points, owners, strict=True)):
        found[whose] += (point - points[index - 1]) % POSITIONS
    return found


def moved(before: Sequence[str], after: Sequence[str]) -> float:
    """The share of traces whose gateway is another one."""
    one, other = ring(before), ring(after)
    return sum(owner(*one, position) != owner(*other, position) for position in range(POSITIONS)) / POSITIONS


def gateways(count: int) -> list[str]:
    """Names as a headless service of Kubernetes resolves to."""
    return [f"10.0.{number // 250}.{number % 250 + 1}:4317" for number in range(count)]


# --- the model ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Fleet:
    """What is asked, what was measured, and what is assumed.

    Attributes:
        services: Processes, each with a sidecar of its own.
        records_s: Log records and spans that one of them makes in a second, before any sampling.
        logs: The part of these that are log records.
        kept_logs: The part of the log records that Weir keeps.
        kept_spans: The part of the spans that reach the gateway.
        tail_kept: The part of the spans that the gateway's tail sampling keeps.
        record_bytes: Bytes of a record in OTLP, not compressed.
        compression: Bytes on the wire for each of these.
        peak: The busiest second for each average one.
        outage_h: Hours without a backend that nothing may be lost in.
        decision_wait_s: How long the gateway holds a trace.
        span_memory: Bytes of the gateway's memory for each byte of OTLP of the spans that it holds. Measured.
        sidecar_records_s: Records a core of a sidecar takes to disk and sends on in a second. Measured.
        balancer_records_s: Records a core of the first tier does. Measured.
        gateway_records_s: Records a core of the second tier does. Measured.
        headroom: The part of a core that is planned with.
        partition_bytes_s: What a partition of Kafka carries. An assumption.
        shard_records_s: What a shard of ClickHouse takes in. An assumption.
        core_hour: Price of an hour of a core. Prices are assumptions, in any currency.
        disk_gib_month: Price of a GiB of block storage for a month.
        ingest_gib: Price of a GiB taken in by a backend.
        ingest_million: Price of a million records taken in by a backend, beside that of their bytes.
        network_gib: Price of a GiB between zones.
    """

    services: int = 1_000
    records_s: float = 500.0
    logs: float = 0.7
    kept_logs: float = 0.15
    kept_spans: float = 1.0
    tail_kept: float = 0.1
    record_bytes: float = 400.0
    compression: float = 0.12
    peak: float = 3.0
    outage_h: float = 4.0
    decision_wait_s: float = 10.0
    span_memory: float = 12.0
    sidecar_records_s: float = 51_000.0
    balancer_records_s: float = 76_000.0
    gateway_records_s: float = 56_000.0
    headroom: float = 0.6
    partition_bytes_s: float = 5e6
    shard_records_s: float = 200_000.0
    core_hour: float = 0.04
    disk_gib_month: float = 0.08
    ingest_gib: float = 0.30
    ingest_million: float = 0.0
    network_gib: float = 0.01


@dataclass(frozen=True, slots=True)
class Plan:
    """What a fleet takes.

    Attributes:
        made_s: Records its services make in a second, on average.
        sent_s: Those of them that leave the services.
        stored_s: Those that reach the backend.
        sidecar_cores: Of all sidecars together, at the peak.
        sidecar_disk_gib: Of one sidecar's queue, for the outage.
        balancer_cores: Of the first tier of gateways, at the peak.
        gateway_cores: Of the second.
        gateway_memory_gib: What the second tier holds while it waits for the ends of traces.
        gateway_disk_gib: Of the gateways' queues, for the outage.
        partitions: Of Kafka, at the peak.
        shards: Of ClickHouse, at the peak.
        unsampled: Price of a million records made, all of them sent to the backend, without collectors.
        price: Price of a million records made, with Weir and both tiers.
        price_of_tiers: What of it the collectors, their disks and the network take.
    """

    made_s: float
    sent_s: float
    stored_s: float
    sidecar_cores: float
    sidecar_disk_gib: float
    balancer_cores: float
    gateway_cores: float
    gateway_memory_gib: float
    gateway_disk_gib: float
    partitions: int
    shards: int
    unsampled: float
    price: float
    price_of_tiers: float


def plan(fleet: Fleet) -> Plan:
    """The arithmetic, each line with its unit."""
    gib = 2**30
    made_s = fleet.services * fleet.records_s
    logs_s, spans_s = made_s * fleet.logs * fleet.kept_logs, made_s * (1 - fleet.logs) * fleet.kept_spans
    sent_s = logs_s + spans_s
    stored_s = logs_s + spans_s * fleet.tail_kept
    outage_s = fleet.outage_h * 3600
    cores = {
        name: sent_s * fleet.peak / (capacity * fleet.headroom)
        for name, capacity in (
            ("sidecar", fleet.sidecar_records_s),
            ("balancer", fleet.balancer_records_s),
            ("gateway", fleet.gateway_records_s),
        )
    }
    wire_s = fleet.record_bytes * fleet.compression
    # Queues keep what is not compressed.
    sidecar_disk = sent_s * fleet.record_bytes * outage_s / gib
    gateway_disk = stored_s * fleet.record_bytes * outage_s / gib
    million_s = 1e6 / made_s  # seconds in which a million records are made

    def ingested(records_s: float) -> float:
        return million_s * (
            records_s * fleet.record_bytes / gib * fleet.ingest_gib + records_s / 1e6 * fleet.ingest_million
        )

    # Machines are paid for the average hour as for the peak.
    machines = million_s / 3600 * sum(cores.values()) * fleet.core_hour
    disks = million_s / _SECONDS_A_MONTH * (sidecar_disk + gateway_disk) * fleet.disk_gib_month
    hops = million_s * (2 * sent_s + stored_s) * wire_s / gib * fleet.network_gib
    return Plan(
        made_s=made_s,
        sent_s=sent_s,
        stored_s=stored_s,
        sidecar_cores=cores["sidecar"],
        sidecar_disk_gib=sidecar_disk / fleet.services,
        balancer_cores=cores["balancer"],
        gateway_cores=cores["gateway"],
        gateway_memory_gib=spans_s * fleet.peak * fleet.record_bytes * fleet.span_memory * fleet.decision_wait_s / gib,
        gateway_disk_gib=gateway_disk,
        partitions=math.ceil(sent_s * fleet.peak * wire_s / fleet.partition_bytes_s),
        shards=math.ceil(stored_s * fleet.peak / (fleet.shard_records_s * fleet.headroom)),
        unsampled=ingested(made_s) + million_s * made_s * wire_s / gib * fleet.network_gib,
        price=ingested(stored_s) + machines + disks + hops,
        price_of_tiers=machines + disks + hops,
    )


# --- the page -------------------------------------------------------------------------------------------------------


def rings() -> list[Mapping[str, float]]:
    """For rings of several sizes: the largest and the smallest share of the mean one, and what one more moves."""
    found: list[Mapping[str, float]] = []
    for count in (2, 3, 4, 8, 16, 32):
        of = shares(gateways(count))
        mean = POSITIONS / count
        found.append(
            {
                "gateways": count,
                "largest": max(of.values()) / mean,
                "smallest": min(of.values()) / mean,
                "moved": moved(gateways(count), gateways(count + 1)),
                "ideal": 1 / (count + 1),
            }
        )
    return found


def _shown(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 or isinstance(number, int) else f"{number:.3g}"


def main() -> None:
    """Print both parts."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fleet", description=__doc__.split("\n", 1)[0])
    for field in fields(Fleet):
        kind = int if field.name == "services" else float
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=kind, default=field.default, metavar="N")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    given = vars(parser.parse_args())
    as_json = given.pop("json")
    fleet = Fleet(**given)
    sizes = sorted({10, 100, 1_000, 10_000, fleet.services})
    plans = {size: plan(Fleet(**{**given, "services": size})) for size in sizes}
    if as_json:
        found = {"fleet": asdict(fleet), "rings": rings(), "plans": {size: asdict(of) for size, of in plans.items()}}
        print(json.dumps(found, indent=2))
        return
    print("The ring: a gateway's share of the mean one, and the traces that one more gateway moves (and at best)")
    for of in rings():
        print(
            f"  {of['gateways']:3} gateways  largest {of['largest']:.2f}  smallest {of['smallest']:.2f}"
            f"  moved {of['moved']:.3f} ({of['ideal']:.3f})"
        )
    print(f"\nServices of {fleet.records_s:g} records/s each")
    for field in fields(Plan):
        print(f"  {field.name:20}" + "".join(f"{_shown(getattr(plans[size], field.name)):>14}" for size in sizes))
    print(f"  {'services':20}" + "".join(f"{size:>14,}" for size in sizes))


if __name__ == "__main__":
    main()
