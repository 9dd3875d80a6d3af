"""No request and no harvest at a global reads a whole table that grows with the federation, however many artifacts there are."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable

import pytest
from django.test import Client
from pytest_django import Settings

from datamodel.audit import chain
from datamodel.models import HarvestState, RemoteInventory
from datamodel.sealing import seal
from harvest import exchange, expiry
from tests.factories import artifact_row
from tests.fakes.feed import TOKEN, FakeInventory, event_fields, serve
from tests.global_inventory.conftest import Pair
from tests.plans import COST_OF_FEW, FEW, MOST_COST, many_rows, watching

# That it reads only a page is not known to the planner (`PAGE_END`), which says what a tenth of what it expects costs.
_MOST = {"listing": 4 * MOST_COST}


def _requests(client: Client) -> dict[str, Callable[[], object]]:
    """One of each kind that comes often."""

    def ask(method: str, path: str, document: object = None) -> Callable[[], object]:
        def act() -> None:
            body = json.dumps(document) if document is not None else ""
            answer = client.generic(method, path, body, content_type="application/json")
            content = b"".join(answer) if answer.streaming else answer.content
            assert answer.status_code < 400, (method, path, answer.status_code, content)

        return act

    uris = [f"cadc:MANY/{number}" for number in range(1, 200)]
    site = uuid.uuid4()
    held = [{"uri": uri, "digest": f"md5:{number:032x}"} for number, uri in enumerate(uris)]
    return {
        "locate": ask("POST", "/locate", {"uri": uris[0], "direction": "get"}),
        "bulk locate": ask("POST", "/locate", {"uris": uris, "direction": "get"}),
        "locate for PUT": ask("POST", "/locate", {"uri": "cadc:PLANS/file", "direction": "put"}),
        "HEAD": ask("HEAD", "/files/cadc:MANY/7"),
        "GET": ask("GET", "/files/cadc:MANY/7"),
        "held": ask("POST", "/held", {"files": held}),
        "listing": ask("GET", "/artifacts?namespace=cadc:MANY/&limit=100"),
        "listing of a past moment": ask("GET", "/artifacts?namespace=cadc:MANY/&limit=100&as_of=2026-11-01T00:00:00Z"),
        "news": ask("GET", "/harvest/news?after=400"),
        "news for a site": ask("GET", f"/harvest/news?after=400&sender={site}"),
        "feed for a site": ask(
            "GET", f"/harvest/artifacts?limit=100&namespace=cadc:PLANS/&holder={site}&sender={site}"
        ),
        "explain": ask("GET", "/explain?uri=cadc:MANY/40"),
        "metrics": ask("GET", "/metrics"),
    } | {
        f"feed of {stream}": ask("GET", f"/harvest/{stream}?limit=100")
        for stream in ("sites", "deleted-artifacts", "artifacts")
    }


def _news(peer: FakeInventory) -> dict[str, Callable[[], object]]:
    """One harvest of each kind of news."""
    row, other = (artifact_row(f"cadc:NEW/{name}") for name in ("one", "other"))

    def harvest(*news: Callable[[], object]) -> Callable[[], object]:
        def act() -> None:
            for one in news:
                one()
            assert exchange.harvest("peer").is_complete

        return act

    def again() -> None:
        HarvestState.objects.update(epoch="", cur_txid=0)

    return {
        "new artifacts": harvest(lambda: peer.add_artifact(row), lambda: peer.add_artifact(other)),
        "known artifacts": harvest(again),
        "deleted": harvest(lambda: peer.remove("artifacts", str(row.id)), lambda: peer.add_tombstone(row)),
        "copies": harvest(lambda: peer.add("locations", event_fields(other.id, other.uri))),
        "copies that went": harvest(
            lambda: peer.remove("locations", str(other.id)),
            lambda: peer.add("deleted-locations", event_fields(other.id, other.uri)),
        ),
    }


def test_nothing_that_a_global_does_often_reads_a_whole_table(
    pair: Pair, operator: Client, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.INVENTORY_ROLE, settings.HARVEST_NUDGE = "global", ""
    modules: list[str] = settings.INVENTORY_METRICS_MODULES
    settings.INVENTORY_METRICS_MODULES = [module for module in modules if not module.startswith("site_service")]
    sites = [remote.site_id for remote in pair]
    with serve() as peer, many_rows(sites), watching(monkeypatch) as watch:
        peer.add_site()
        RemoteInventory.objects.create(name="peer", role="site", url=peer.url, token=seal(TOKEN.encode()))
        work: dict[str, Callable[[], object]] = {
            "expiry of events": lambda: expiry.expire_events(seconds=0.1),
            "seal": chain.seal_ready,
        }
        for name, act in (_requests(operator) | _news(peer) | work).items():
            with watch.at(name, most=_MOST.get(name, MOST_COST)):
                act()
    assert watch.looked_at > 100
    assert watch.prepared >= 5
    assert not watch.offences, "\n\n".join(watch.offences)


def test_a_page_of_a_listing_is_read_by_index_where_it_is_most_of_what_the_planner_expects(
    pair: Pair, operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    sites = [remote.site_id for remote in pair]
    with many_rows(sites, rows=FEW, pretended=FEW), watching(monkeypatch) as watch:
        for query in ("/&limit=1000", "/&limit=10000", "/&format=ndjson"):
            with watch.at(query, most=COST_OF_FEW):
                answer = operator.get(f"/artifacts?namespace=cadc:MANY{query}")
                assert b"cadc:MANY/1001" in (b"".join(answer) if answer.streaming else answer.content)
    assert not watch.offences, "\n\n".join(watch.offences)
