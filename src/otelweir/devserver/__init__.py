"""The local backend: takes OTLP over HTTP, keeps it in SQLite, and tells what arrived."""

from typing import TYPE_CHECKING

from otelweir.faces import lazily

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

# SQLite, protobuf and the web server are only for those who run it.
_HOMES = {"create_app": "app", "DevServer": "server", "Store": "store", "StoreBusy": "store"}
__getattr__, __dir__ = lazily(__name__, {name: _HOMES.get(name, "views") for name in __all__})
