"""A log call that passes two front ends is captured once.

structlog may hand its rendered line on to `logging`, and so may Loguru. The adapter, which sees the values, captures;
then it says so here, and the bridge, which would see only text, asks before it captures::

    if once.used and once.captured(logger):
        return  # an adapter has it already

A mark is tied to the code that makes the call. Were it just a flag, a line that a later processor drops would leave
the flag behind and cost an innocent record.
"""

from __future__ import annotations

import sys
import threading
from types import CodeType
from typing import Final

_DEPTH: Final = 24
"""How far up a caller may be; a walk over this many frames takes about a microsecond."""


class _Mark(threading.local):
    call: CodeType | None = None
    chain: CodeType | None = None
    logger: object = None


mark: Final = _Mark()
used = False
"""Whether an adapter ever captured anything. Asking for this costs a third of looking at the thread's mark."""


def capture(call: CodeType, *, chain: CodeType | None = None, logger: object = None) -> None:
    """Say that the log call in progress is captured.

    Args:
        call: The code of the function that, once the adapter returns, hands the record on.
        chain: The code of the function inside `call` in which the adapter runs. Records made in there are others'.
        logger: The `logging.Logger` that it hands the record to; None for any.
    """
    global used
    used = True
    mark.call, mark.chain, mark.logger = call, chain, logger


def captured(logger: object) -> bool:
    """Whether the record that this logger is about to make was captured by an adapter. Asking uses the mark up."""
    call = mark.call
    if call is None or (mark.logger is not None and mark.logger is not logger):
        return False
    frame = sys._getframe(1)
    for _ in range(_DEPTH):
        if frame.f_code is call:
            mark.call = None
            return True
        if frame.f_code is mark.chain:
            return False  # from within the chain, while the adapter's own record is still on its way
        if frame.f_back is None:
            break
        frame = frame.f_back
    mark.call = None
    return False
