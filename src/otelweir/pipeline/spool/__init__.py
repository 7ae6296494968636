"""What was accepted, as bytes that outlive the process."""

from typing import TYPE_CHECKING

from otelweir.faces import lazily

if TYPE_CHECKING:
    from otelweir.pipeline.spool.otlp import Encoded, Group, encode_log, encode_span, join
    from otelweir.pipeline.spool.segment import Kept, set_aside_in
    from otelweir.pipeline.spool.spool import Frame, Part, Spool, Waiting

__all__ = [
    "Encoded",
    "Frame",
    "Group",
    "Kept",
    "Part",
    "Spool",
    "Waiting",
    "encode_log",
    "encode_span",
    "join",
    "set_aside_in",
]

_HOMES = {
    "Frame": "spool",
    "Kept": "segment",
    "Part": "spool",
    "Spool": "spool",
    "Waiting": "spool",
    "set_aside_in": "segment",
}
__getattr__, __dir__ = lazily(__name__, {name: _HOMES.get(name, "otlp") for name in __all__})
