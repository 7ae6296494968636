"""Loguru with Weir: one line adds the sink, all other sinks stay as they were.

pip install 'otelweir[loguru,dev]'
weir dev                                  # in another terminal: shows what arrives
python examples/loguru_app.py
"""

from loguru import logger

import otelweir
from otelweir.integrations import loguru as weir


def main() -> None:
    handle = otelweir.configure(service_name="shop")
    weir.init(level="INFO")
    with logger.contextualize(shop="north"):
        for order in range(3):
            logger.bind(order={"id": order, "items": ["tea", "cups"]}).info("order {} placed", order)
        try:
            raise LookupError("order 13 is lost")
        except LookupError:
            logger.exception("order failed")
    handle.shutdown()


if __name__ == "__main__":
    main()
