"""No request, tick or worker of a site reads a whole table that grows with the inventory, however many artifacts there are."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import pytest
from django.db import connection
from django.test import Client

from datamodel.audit import chain
from datamodel.models import StorageSite
from datamodel.uris import Namespace
from harvest import expiry
from site_service.file_sync import attempts, scan
from site_service.policy.operations import set_policy
from site_service.retention import operations as removals, queries as retention, retire
from site_service.scrub import operations as scrub, queries as scrub_queries, scan as scrub_scan
from site_service.storage.contract import ArtifactStore
from tests.plans import COST_OF_FEW, FEW, GROWING, MOST_COST, many_rows, watching

# A tick of removals looks at 20,000 dead at most, and for each of them twice for a snapshot; a page of a hundred rows is small.
_MOST = {"removals": 20 * MOST_COST, "feed of artifacts": 1_000}
# Gauges of queues count them: what waits there is to be done, and gone then.
_MAY_READ = {"metrics": frozenset({"sync_attempt", "obsolete_storage_location"})}
_OTHER = uuid.UUID(int=7)


@pytest.fixture
def _many(site: StorageSite) -> Iterator[None]:
    with many_rows([site.id, _OTHER]):
        yield


def _requests(client: Client) -> dict[str, Callable[[], object]]:
    """One of each kind that comes often; what they answer is tested elsewhere, here only that it is no error."""
    file = "/files/cadc:PLANS/file"

    def ask(method: str, path: str, **values: object) -> Callable[[], object]:
        def act() -> None:
            answer = client.generic(method, path, **values)  # type: ignore[arg-type]  # what the caller names
            body = b"".join(answer) if answer.streaming else answer.content
            assert answer.status_code < 400, (method, path, answer.status_code, body)

        return act

    body = {"data": b"content", "content_type": "application/octet-stream"}
    return {
        "PUT": ask("PUT", file, **body),
        "PUT again": ask("PUT", file, **body),
        "PUT replacing": ask("PUT", file, **(body | {"data": b"other"})),
        "POST": ask("POST", file, data=b"contentType=text/plain", content_type="application/x-www-form-urlencoded"),
        "HEAD": ask("HEAD", file),
        "GET": ask("GET", file),
        "listing": ask("GET", "/artifacts?namespace=cadc:MANY/&limit=100"),
        "listing, next page": ask("GET", "/artifacts?namespace=cadc:MANY/&limit=100&after=cadc:MANY/1500"),
        "listing of a past moment": ask("GET", "/artifacts?namespace=cadc:MANY/&limit=100&as_of=2026-11-01T00:00:00Z"),
        "verified": ask(
            "POST", "/verified", data=b'{"uris": ["cadc:MANY/7", "cadc:MANY/8"]}', content_type="application/json"
        ),
        "news": ask("GET", "/harvest/news?after=400"),
        "explain": ask("GET", "/explain?uri=cadc:MANY/40"),
        "metrics": ask("GET", "/metrics"),
        "DELETE": ask("DELETE", file),
    } | {
        f"feed of {stream}": ask("GET", f"/harvest/{stream}?limit=100")
        for stream in ("deleted-locations", "locations", "deleted-artifacts", "artifacts")
    }


def _work(store: ArtifactStore) -> dict[str, Callable[[], object]]:
    """One round of each thing that a site does again and again by itself."""

    def sync() -> None:
        scan.note_missing(seconds=0)
        (lease,) = attempts.claim(batches=1)
        holder = uuid.uuid4()
        taken = attempts.take_up(lease=lease, holder=holder)
        attempts.fail(holder=holder, artifact_id=taken[0].artifact_id, reason="busy", detail="", seconds=60)
        attempts.renew(holder=holder)
        attempts.release(holder=holder)
        attempts.finish([taken[1].artifact_id])

    def remove() -> None:
        removals.purge_retired(store=store, artifact_id=retention.due_retired()[0])
        removals.remove_obsolete(store=store, location_id=retention.due_obsolete()[0])
        retention.reattached()

    def drop() -> None:
        retire.advance(seconds=0)
        retire.prune()

    def read_again() -> None:
        scrub_scan.follow(scrub_queries.configured_schedule(), seconds=0)
        scrub_scan.settle()
        scrub.begin_run(seconds=1)
        scrub_scan.tidy(retention_seconds=1)

    return {
        "file sync": sync,
        "removals": remove,
        "retire": drop,
        "scrub": read_again,
        "expiry of events": lambda: expiry.expire_events(seconds=0.1),
        "seal": chain.seal_ready,
    }


@pytest.mark.usefixtures("_many")
def test_nothing_that_a_site_does_often_reads_a_whole_table(
    client: Client, store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_policy(namespace=Namespace("cadc:"), wanted=True, priority=0)
    retire.begin_run(namespace=Namespace("cadc:MANY/1"), reason="full", started_by="jane")
    with watching(monkeypatch) as watch:
        for name, act in (_requests(client) | _work(store)).items():
            with watch.at(name, most=_MOST.get(name, MOST_COST), may_read=_MAY_READ.get(name, frozenset())):
                act()
    assert watch.looked_at > 100
    assert watch.prepared >= 10
    assert not watch.offences, "\n\n".join(watch.offences)


def test_a_page_of_a_listing_is_read_by_index_where_it_is_most_of_what_the_planner_expects(
    client: Client, site: StorageSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The planner takes a namespace for a two hundredth of all; where a page was more, each read and sorted all that there was."""
    with many_rows([site.id], rows=FEW, pretended=FEW), watching(monkeypatch) as watch:
        for query in ("/&limit=1000", "/&limit=10000", "/&limit=10000&stored=true", "/&format=ndjson"):
            with watch.at(query, most=COST_OF_FEW):
                answer = client.get(f"/artifacts?namespace=cadc:MANY{query}")
                assert b"cadc:MANY/1001" in (b"".join(answer) if answer.streaming else answer.content)
    assert not watch.offences, "\n\n".join(watch.offences)


@pytest.mark.usefixtures("_many")
def test_a_statement_that_reads_a_whole_table_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    statements = [
        "SELECT count(*) FROM artifact",
        "SELECT uri FROM artifact ORDER BY content_length LIMIT 10",
        "SELECT uri FROM artifact WHERE content_checksum = 'md5:x'",
        "SELECT max(meta_modified_at) FROM artifact WHERE txid > 0",
        "UPDATE artifact SET txid = 0 WHERE content_type = 'text/plain'",
    ]
    with watching(monkeypatch) as watch, watch.at("statement"), connection.cursor() as cursor:
        for number, statement in enumerate(statements, 1):
            cursor.execute(statement)
            assert len(watch.offences) == number, statement


def test_what_refers_to_a_row_that_goes_is_found_by_an_index(site: StorageSite) -> None:
    """To check a foreign key PostgreSQL reads the table that refers: the plan of the DELETE does not show it."""
    with connection.cursor() as cursor:
        cursor.execute(_FOREIGN_KEYS, {"tables": sorted(GROWING)})
        keys = cursor.fetchall()
    assert len(keys) >= 3
    assert [name for name, has_index in keys if not has_index] == []


_FOREIGN_KEYS = """
    SELECT c.conname, EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.conrelid AND i.indkey[0] = c.conkey[1])
    FROM pg_constraint c WHERE c.contype = 'f' AND c.conrelid = ANY(%(tables)s::regclass[])
"""
