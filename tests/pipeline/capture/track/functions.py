"""What is tracked at the top of a module, so that another process finds it by name."""

from __future__ import annotations

import otelweir


@otelweir.track
def double(number: int) -> int:
    """Twice the number."""
    return 2 * number


@otelweir.track
class Shop:
    """A class that is tracked whole."""

    def __init__(self, name: str) -> None:
        self.name = name

    def sell(self, what: str) -> str:
        return f"{what} at {self.name}"

    @classmethod
    def named(cls, name: str) -> Shop:
        return cls(name)

    @staticmethod
    def price(what: str) -> int:
        return len(what)

    def _hidden(self) -> None:
        pass
