"""A web server of several workers: one site to its users, and one count of what they asked."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from datamodel.processes import wait_until
from tests.ports import free_port
from tests.site_service.server import SiteProcess

ASKED = 40
CONNECTIONS = 200


@pytest.fixture
def busy_site(django_db_setup: None, tmp_path: Path) -> Iterator[SiteProcess]:
    several = {"INVENTORY_WORKERS": "2", "INVENTORY_METRICS_PUBLIC": "true"}
    site = SiteProcess(tmp_path, free_port(), several)
    site.start()
    yield site
    site.stop()


def workers(site: SiteProcess) -> set[int]:
    assert site.process is not None
    main = site.process.pid
    return {int(pid) for pid in Path(f"/proc/{main}/task/{main}/children").read_text().split()}


def answered(metrics: str) -> float:
    found = re.findall(
        r'^inventory_requests_total\{method="OPTIONS",reason="none",status="2xx"\} (\S+)', metrics, re.MULTILINE
    )
    return sum(float(value) for value in found)


def timed(metrics: str) -> float:
    return sum(
        float(value)
        for value in re.findall(r'^inventory_request_seconds_count\{method="OPTIONS"\} (\S+)', metrics, re.MULTILINE)
    )


def scraped(site: SiteProcess) -> str:
    return site.request("GET", "/metrics").body.decode()


@pytest.mark.usefixtures("token")
def test_each_scrape_sees_what_all_workers_counted_also_those_that_died(busy_site: SiteProcess) -> None:
    before = answered(scraped(busy_site))
    for _ in range(ASKED):
        busy_site.request("OPTIONS", "/files/")
    seen = [scraped(busy_site) for _ in range(10)]
    assert {answered(metrics) for metrics in seen} == {timed(metrics) for metrics in seen} == {before + ASKED}
    assert not any("process_resident_memory_bytes" in metrics for metrics in seen)
    first = workers(busy_site)
    assert len(first) == 2
    for pid in first:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: len(workers(busy_site) - first) == 2, 20, "no worker came in place of those that were killed")
    busy_site.request("OPTIONS", "/files/")
    assert answered(scraped(busy_site)) == before + ASKED + 1


def test_a_server_that_ends_takes_its_counters_with_it(busy_site: SiteProcess) -> None:
    directory = counters_of(busy_site)
    assert directory.stat().st_mode & 0o077 == 0
    busy_site.stop()
    assert not directory.exists()


def test_connections_are_shared_out_among_the_workers(busy_site: SiteProcess) -> None:
    with ExitStack() as opened:
        for _ in range(CONNECTIONS):
            opened.enter_context(busy_site.connect())
        wait_until(lambda: sum(taken(busy_site)) >= CONNECTIONS, 20, "not all connections were taken")
        assert min(taken(busy_site)) >= CONNECTIONS * 3 // 10


def taken(site: SiteProcess) -> list[int]:
    """How many connections to the site's port each worker has."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    found = {f"socket:[{line.split()[9]}]" for line in lines if line.split()[1].endswith(f":{site.port:04X}")}
    return [sum(opened in found for opened in links(pid)) - 1 for pid in workers(site)]


def links(pid: int) -> Iterator[str]:
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed since
            yield str(link.readlink())


def counters_of(site: SiteProcess) -> Path:
    """Where its workers keep the files of their counters."""
    opened = (Path(link) for pid in workers(site) for link in links(pid))
    (directory,) = {path.parent for path in opened if "inventory-counters-" in str(path)}
    return directory
