"""Identifiers of artifacts and of stored objects: random where rows are divided, in order of time where indexes grow."""

from __future__ import annotations

import os
import time
import uuid

_PERIOD_BITS = 36
# Nanoseconds: 0.26 ms, so that the period is 208 days.
_TICK_BITS = 18
_RANDOM_AFTER_VERSION = (1 << 12) - 1 << 64 | (1 << 62) - 1
_VERSION_8, _VARIANT = 8 << 76, 2 << 62


def new_id() -> uuid.UUID:
    """A UUID of version 8 (RFC 9562, 5.8): 12 random bits, 36 of the time, and 74 random ones around version and variant.

    By the first three hexadecimal digits ids are spread evenly over 4096 parts (reconcile divides by them, a store's buckets are
    they). Within a part those made together follow each other: new rows of an index by id share some thousand pages, whatever its
    size, where random ids would each have a page of their own to be read, changed and logged whole. The time comes around, so
    that later ids fill what splits of pages left half empty (`scale.md`, Ids).
    """
    drawn = int.from_bytes(os.urandom(16), "big")
    ticks = time.time_ns() >> _TICK_BITS & (1 << _PERIOD_BITS) - 1
    part = drawn >> 116
    return uuid.UUID(int=part << 116 | ticks << 80 | _VERSION_8 | _VARIANT | drawn & _RANDOM_AFTER_VERSION)
