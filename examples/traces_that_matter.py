"""A hundred requests, of which three matter: the tail keeps those, the flight recorder their logs. Needs no network.

What arrives: every request that failed, with the debug lines that sampling had not kept, at weight 0; those that took
long; and one in ten of the others, each standing for ten.

pip install 'otelweir[dev]'
weir dev                                  # in another terminal: shows what arrives
WEIR_TRACE_TAIL=true WEIR_TRACE_TAIL_SLOW=50ms WEIR_FLIGHT_RECORDER=errors WEIR_LOG_FIRST=1 \\
OTEL_TRACES_SAMPLER=weir opentelemetry-instrument python examples/traces_that_matter.py
"""

import logging
import time

from opentelemetry import trace
from opentelemetry.trace import SpanKind

log = logging.getLogger("shop")
tracer = trace.get_tracer("shop")


def pay(order: int) -> None:
    with tracer.start_as_current_span("pay", attributes={"order.id": order}):
        log.debug("card of order %d is asked", order)
        if order in (20, 70):
            raise ValueError("the card was refused")
        if order == 40:
            time.sleep(0.06)


def request(order: int) -> None:
    with tracer.start_as_current_span("POST /orders", kind=SpanKind.SERVER) as span:
        log.debug("order %d came", order)
        try:
            pay(order)
        except ValueError:
            log.exception("order %d failed", order)
            span.set_status(trace.StatusCode.ERROR)


if __name__ == "__main__":
    logging.getLogger().setLevel(logging.DEBUG)
    for number in range(100):
        request(number)
