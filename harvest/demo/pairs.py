"""How the demo's inventories come to know each other: by one-time codes over HTTP, as an operator would pair them."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import urllib3

from harvest.demo.records import DemoError

_PATIENCE_SECONDS = 60.0
_PAUSE_SECONDS = 0.1
_http = urllib3.PoolManager(timeout=urllib3.Timeout(30), retries=False)


@dataclass(frozen=True, slots=True)
class Side:
    """One inventory, and what opens all its doors."""

    name: str
    role: str
    url: str
    token: str


def pair_all(pairs: Iterable[tuple[Side, Side]], stopping: threading.Event) -> None:
    """Pair each of these, unless it is paired already. Raises `DemoError`."""
    wanted = list(pairs)
    if not wanted:
        return
    with ThreadPoolExecutor(len(wanted)) as executor:
        for outcome in [executor.submit(_pair, inviting, accepting, stopping) for inviting, accepting in wanted]:
            outcome.result()


def _pair(inviting: Side, accepting: Side, stopping: threading.Event) -> None:
    known, knows = _knows(inviting, accepting, stopping), _knows(accepting, inviting, stopping)
    if stopping.is_set() or (known and knows):
        return
    if known:
        # A demo was killed between the two ends.
        _call(inviting, "/pairings/revocations", {"name": accepting.name, "reason": "half paired"})
    invited = _call(inviting, "/pairings", {"name": accepting.name, "role": accepting.role})
    _call(accepting, "/pairings/acceptances", {"name": inviting.name, "code": invited["code"]})


def _knows(one: Side, other: Side, stopping: threading.Event) -> bool:
    """Whether the other is paired here; waits for a service that has just been started."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not stopping.wait(_PAUSE_SECONDS):
        try:
            items = _call(one, "/pairings")["items"]
            return any(item["name"] == other.name and item["state"] == "paired" for item in items)
        except urllib3.exceptions.HTTPError as error:
            if time.monotonic() > deadline:
                raise DemoError(f"{one.name} does not answer: {error}") from error
    return False


def _call(side: Side, path: str, document: dict[str, str] | None = None) -> Any:
    """GET, or POST of a document. Raises `DemoError` for a refusal, `HTTPError` when nobody answers."""
    answer = _http.request(
        "GET" if document is None else "POST",
        f"{side.url}{path}",
        body=None if document is None else json.dumps(document),
        headers={"Authorization": f"Bearer {side.token}", "Content-Type": "application/json"},
    )
    if answer.status == 503:
        raise urllib3.exceptions.ProtocolError("it is not ready")
    if answer.status not in {200, 201}:
        raise DemoError(f"{side.name} answered {answer.status} to {path}: {answer.data[:300].decode(errors='replace')}")
    return answer.json()
