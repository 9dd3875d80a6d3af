"""How much memory there is; and what the C library keeps of it when a process has given it back.

glibc leaves much of that to the process, for later. Elsewhere (musl, macOS) there is nothing to tell it, and nothing happens.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from functools import cache
from pathlib import Path

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8
# Blocks of a large file are a fraction of the first, all that are on their way at a time no more than the second.
_BLOCK_BYTES = 4 * 1024 * 1024
_BLOCKS_BYTES = 32 * 1024 * 1024
# What a container may have: control groups, version 2 and 1, as they are seen from inside.
_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def machine_bytes() -> int:
    """Of this machine, or of this container if that may have less."""
    there = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for path in _LIMITS:
        # "max" is no limit.
        with contextlib.suppress(OSError, ValueError):
            there.append(int(path.read_text()))
    return min(there)


def share_arenas() -> None:
    """What one thread has given back is of use to the others, too; glibc would keep it in up to eight places for each core."""
    with contextlib.suppress(OSError, AttributeError):
        _library().mallopt(_M_ARENA_MAX, 2)


def reuse_blocks() -> None:
    """What a block of a large file was in is kept for the next: given back to the system each time, it comes as new pages, whose
    first use takes longer than what is done with the block. At most 32 MiB, until `give_back`.
    """
    with contextlib.suppress(OSError, AttributeError):
        # Both, because either by itself stops glibc from adapting the other.
        _library().mallopt(_M_MMAP_THRESHOLD, _BLOCK_BYTES)
        _library().mallopt(_M_TRIM_THRESHOLD, _BLOCKS_BYTES)


def give_back() -> None:
    """To the system, what is free: after work that needed much, in a process that lives for long. Takes some milliseconds."""
    with contextlib.suppress(OSError, AttributeError):
        _library().malloc_trim(0)


@cache
def _library() -> ctypes.CDLL:
    """Once: each leaves garbage."""
    return ctypes.CDLL(None)
