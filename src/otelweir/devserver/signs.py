"""Signs for a terminal, and what stands for them where the encoding of the output does not have them."""

from __future__ import annotations

from typing import Final

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.segment import Segment

PLAIN: Final = {
    **dict.fromkeys("█▏▎▍▌▋▊▉━", "#"),
    **dict.fromkeys("░", "."),
    **dict.fromkeys("├│", "|"),
    **dict.fromkeys("└", "`"),
    **dict.fromkeys("─·", "-"),
    **dict.fromkeys("…", "~"),
}
"""One character for one, so that nothing moves."""

_PLAIN: Final = str.maketrans(PLAIN)
_MARKS: Final = ("✗", "✓")
_WORDS: Final = ("FAILED", "ok")


def has_signs(encoding: str) -> bool:
    """Whether the encoding has all of our signs."""
    try:
        "".join((*PLAIN, *_MARKS)).encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def mark(ok: bool, encoding: str) -> str:
    """A tick or a cross; words where both would come out as the same question mark."""
    return (_MARKS if has_signs(encoding) else _WORDS)[ok]


class Legible:
    """What it is given, with signs that the encoding of the output has."""

    def __init__(self, inner: RenderableType) -> None:
        self._inner = inner

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        segments = console.render(self._inner, options)
        if has_signs(options.encoding):
            yield from segments
            return
        for text, style, control in segments:
            yield Segment(text.translate(_PLAIN), style, control)
