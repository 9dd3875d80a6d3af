"""A feature whose gauges ask a store that is not there."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import Metric

from datamodel.errors import StorageUnavailableError


def collect() -> Iterator[Metric]:
    yield from ()
    raise StorageUnavailableError("the disk is not mounted")
