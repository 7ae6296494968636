"""The local backend: takes OTLP over HTTP, keeps it in SQLite, and tells what arrived."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from otelweir.devserver.app import create_app
    from otelweir.devserver.server import DevServer
    from otelweir.devserver.store import Store, StoreBusy
    from otelweir.devserver.views import Intake, LogTotal, Pattern, Record, Snapshot, Span, Totals, Trace

__all__ = [
    "DevServer",
    "Intake",
    "LogTotal",
    "Pattern",
    "Record",
    "Snapshot",
    "Span",
    "Store",
    "StoreBusy",
    "Totals",
    "Trace",
    "create_app",
]

_HOMES = {"create_app": "app", "DevServer": "server", "Store": "store", "StoreBusy": "store"}


def __getattr__(name: str) -> object:
    # On first use: SQLite, protobuf and the web server are only for those who run it.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'views')}"), name)


def __dir__() -> list[str]:
    return __all__
