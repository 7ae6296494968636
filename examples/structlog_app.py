"""structlog with Weir: printed for people or as JSON, sent with its values as they are.

`weir.configure()` sets structlog up: on a terminal it prints like structlog's defaults, elsewhere one JSON object a
line, from the level given on. In a chain of your own, `weir.processor()` changes nothing of what is printed.

pip install 'otelweir[structlog,dev]'
weir dev                                  # in another terminal: shows what arrives
python examples/structlog_app.py
"""

import structlog

import otelweir
from otelweir.integrations import structlog as weir

log = structlog.get_logger("shop")


def main() -> None:
    handle = otelweir.configure(service_name="shop")
    weir.configure(level="info")  # or put weir.processor() into a chain of your own
    with structlog.contextvars.bound_contextvars(shop="north"):
        for order in range(3):
            log.info("order placed", order={"id": order, "items": ["tea", "cups"]})
        try:
            raise LookupError("order 13 is lost")
        except LookupError:
            log.exception("order failed", order={"id": 13})
    handle.shutdown()


if __name__ == "__main__":
    main()
