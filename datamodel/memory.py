"""What the C library keeps of memory that a process has given back: glibc leaves much of it to the process, for later.

Elsewhere (musl, macOS) there is nothing to tell it, and nothing happens.
"""

from __future__ import annotations

import contextlib
import ctypes

_M_ARENA_MAX = -8


def share_arenas() -> None:
    """What one thread has given back is of use to the others, too; glibc would keep it in up to eight places for each core."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)


def give_back() -> None:
    """To the system, what is free: after work that needed much, in a process that lives for long. Takes some milliseconds."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
