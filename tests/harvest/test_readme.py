"""The client in the README works against a real feed, and the tables there are complete."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pytest_django.live_server_helper import LiveServer

from datamodel import operations
from datamodel.identity import restamp_feed
from datamodel.uris import ArtifactUri
from harvest import metrics, schema
from harvest.streams import STREAMS
from tests.factories import new_content

README = (Path(__file__).parents[2] / "harvest" / "README.md").read_text(encoding="utf-8")
FENCE = re.search(r"```python\n(.*?)```", README, re.DOTALL)


def follow() -> Callable[..., Iterator[dict[str, str]]]:
    assert FENCE is not None
    names: dict[str, Any] = {}
    exec(compile(FENCE[1], "README.md", "exec"), names)  # the text under test
    return names["follow"]  # type: ignore[no-any-return]  # what the text defines


def put(name: str) -> None:
    operations.record_stored(uri=ArtifactUri.parse(f"cadc:TEST/{name}"), content=new_content())


def test_the_client_of_the_readme_follows_a_feed(harvest_token: str, live_server: LiveServer) -> None:
    put("one")
    rows = follow()(live_server.url, harvest_token)
    first = next(rows)
    assert (first["uri"], first["contentLength"]) == ("cadc:TEST/one", "7")
    put("two")
    assert next(rows)["uri"] == "cadc:TEST/two"
    restamp_feed()
    put("three")
    assert {next(rows)["uri"] for _ in range(3)} == {f"cadc:TEST/{name}" for name in ("one", "two", "three")}


def test_the_client_of_the_readme_is_short() -> None:
    assert FENCE is not None
    follow_text = FENCE[1].partition("def follow")[2]
    assert len([line for line in FENCE[1].splitlines() if line.strip()]) <= 20
    assert follow_text


@pytest.mark.usefixtures("inventory")
def test_every_metric_and_column_is_in_the_readme() -> None:
    names = [family.name for family in metrics.collect()]
    assert len(names) == 15
    assert [name for name in names if name not in README] == []
    for stream in ("sites", "artifacts"):
        assert ", ".join(STREAMS[stream].wire_names) in README


def test_every_route_is_described() -> None:
    assert set(schema.PATHS) == {
        "/harvest/news",
        *(f"/harvest/{name}" for name in ("tree", "listing", "rows")),
        *(f"/harvest/{name}" for name in STREAMS),
    }
    assert all("410" in path["get"]["responses"] for path in schema.PATHS.values())
