"""What the C library does with memory that was given back, seen in processes of their own; how much there is at all."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from datamodel import memory

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

_BLOCKS = """
import resource, sys
from datamodel import memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def carry():
    blocks = [b"x" * 1024 * 1024 for _ in range(8)]
    blocks.clear()

if sys.argv[1:] == ["reused"]:
    memory.reuse_blocks()
for _ in range(5):
    carry()
before = faults()
for _ in range(20):
    carry()
print((faults() - before) * resource.getpagesize() // 1024 // 1024)
"""

_glibc = pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="this C library has nothing to be told"
)


@_glibc
def test_blocks_of_large_files_come_in_the_pages_of_those_before() -> None:
    assert _new_mebibytes("reused") < 8
    assert _new_mebibytes() > 80


def _new_mebibytes(*arguments: str) -> int:
    """Of 160 that were carried, eight at a time: how many were in pages that the process did not have."""
    found = subprocess.run([sys.executable, "-c", _BLOCKS, *arguments], capture_output=True, text=True, check=True)
    return int(found.stdout)


@_glibc
def test_a_heap_full_of_holes_goes_back_to_the_system() -> None:
    found = subprocess.run([sys.executable, "-c", _HOLES], capture_output=True, text=True, check=True)
    before, full, after = map(int, found.stdout.split())
    assert full - before > 60_000
    assert after - before < 20_000


@pytest.mark.parametrize(
    ("limit", "is_less"), [("1000000\n", True), ("max\n", False), ("9223372036854771712\n", False), (None, False)]
)
def test_a_container_has_what_it_may_have(
    limit: str | None, is_less: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if limit is not None:
        (tmp_path / "limit").write_text(limit)
    monkeypatch.setattr(memory, "_LIMITS", (tmp_path / "none", tmp_path / "limit"))
    assert memory.machine_bytes() == (1_000_000 if is_less else psutil.virtual_memory().total)
