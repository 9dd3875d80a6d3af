"""Counters of this process, or of all workers of its web server where there are several.

Each worker writes its own file then (`webserver` makes their directory), and whoever is asked reads all of them. A worker that
died keeps its file, so that no counter ever goes back.
"""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from datamodel import env

registry = CollectorRegistry()
"""Where what this process counts belongs."""


def collect() -> Iterable[Metric]:
    """What was counted; and of a process that is alone, what it is and what it uses."""
    if directory := env.text("PROMETHEUS_MULTIPROC_DIR", ""):
        together: Collector = MultiProcessCollector(None, directory)  # type: ignore[no-untyped-call]  # it has no types
        return together.collect()
    return [*registry.collect(), *_alone.collect()]


_alone = CollectorRegistry()
ProcessCollector(registry=_alone)
PlatformCollector(registry=_alone)
GCCollector(registry=_alone)
