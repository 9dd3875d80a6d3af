"""Ports for servers that tests start."""

from __future__ import annotations

import os
import secrets
import socket
from itertools import count
from pathlib import Path

_LOWEST = 20_000
_HIGHEST = 32_768
_PER_CONNECTION = Path("/proc/sys/net/ipv4/ip_local_port_range")


def _own() -> range:
    """Those of this test process, of which each has an equal share.

    None that the kernel gives to connections: one of those holds its port for as long as it lasts, and for minutes after.
    """
    end = _HIGHEST
    if _PER_CONNECTION.exists() and (first := int(_PER_CONNECTION.read_text().split()[0])) > _LOWEST:
        end = min(first, end)
    share = (end - _LOWEST) // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    start = _LOWEST + share * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    return range(start, start + share)


_OWN = _own()
# Who tests another tree beside this one begins elsewhere.
_STEPS = count(secrets.randbelow(len(_OWN)))


def free_ports(number: int) -> int:
    """The first of so many ports in a row that nobody uses now; they are not given again before all others were."""
    while True:
        ports = [_OWN[next(_STEPS) % len(_OWN)] for _ in range(number)]
        if ports[-1] - ports[0] == number - 1 and all(_is_free(port) for port in ports):
            return ports[0]


def free_port() -> int:
    """A port that nobody uses now, as `free_ports`."""
    return free_ports(1)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
