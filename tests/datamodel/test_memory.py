"""Memory that was given back goes to the system when it is asked for: seen in a process of its own."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

_HOLES = """
import re
from datamodel import memory

def resident():
    return int(re.search(r"VmRSS:\\s+(\\d+)", open("/proc/self/status").read()).group(1))

before = resident()
# Blocks of the C library's heap, the last of which stays: what is free lies below it.
blocks = [bytes(4000) for _ in range(20_000)]
last = blocks.pop()
blocks.clear()
full = resident()
memory.give_back()
print(before, full, resident())
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="this C library has nothing to be told")
def test_a_heap_full_of_holes_goes_back_to_the_system() -> None:
    found = subprocess.run([sys.executable, "-c", _HOLES], capture_output=True, text=True, check=True)
    before, full, after = map(int, found.stdout.split())
    assert full - before > 60_000
    assert after - before < 20_000
