"""The inventory as of a moment is what a list kept at that moment says, whatever happened since."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from hypothesis import HealthCheck, given, settings as hypothesis_settings, strategies as st
from pytest_django import Settings

from datamodel import operations
from datamodel.auth import create_api_token
from datamodel.errors import InvalidRequestError, MomentGoneError
from datamodel.models import Artifact, InventoryIdentity, RetiredArtifact
from datamodel.permissions import Grant
from datamodel.rows import database_now
from datamodel.snapshots import queries, rules
from datamodel.snapshots.models import SnapshotMark
from datamodel.uris import ArtifactUri
from tests.datamodel.snapshots.moments import tick
from tests.factories import artifact_row, insert_artifact_row, new_content

NAMES = ["cadc:A/1", "cadc:A/2", "cadc:A/b/3", "cadc:B/1"]


def put(name: str, data: bytes) -> None:
    operations.record_stored(uri=ArtifactUri.parse(name), content=new_content(data))


def delete(name: str) -> None:
    if Artifact.objects.filter(uri=name).exists():
        operations.delete_artifact(uri=ArtifactUri.parse(name))


def undelete(name: str) -> None:
    retired = RetiredArtifact.objects.filter(uri=name, state="retained").order_by("-died_at").first()
    if retired is not None:
        operations.undelete_artifact(retired_id=retired.id, replaces=True)


def living(prefix: str = "") -> dict[str, tuple[Any, str]]:
    return {
        uri: (identity, checksum)
        for identity, uri, checksum in Artifact.objects.values_list("id", "uri", "content_checksum")
        if uri.startswith(prefix)
    }


def as_of(moment: datetime, prefix: str = "") -> dict[str, tuple[Any, str]]:
    return {entry.uri: (entry.id, entry.content_checksum) for entry in queries.all_entries(prefix, moment)}


step = st.one_of(
    st.tuples(st.just("put"), st.sampled_from(NAMES), st.sampled_from([b"one", b"two", b"three"])),
    st.tuples(st.just("delete"), st.sampled_from(NAMES), st.just(b"")),
    st.tuples(st.just("undelete"), st.sampled_from(NAMES), st.just(b"")),
)


def play(what: str, name: str, data: bytes) -> None:
    acts: dict[str, Callable[[], None]] = {
        "put": lambda: put(name, data),
        "delete": lambda: delete(name),
        "undelete": lambda: undelete(name),
    }
    acts[what]()


@pytest.mark.usefixtures("inventory")
@hypothesis_settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None
)
@given(steps=st.lists(step, min_size=5, max_size=25))
def test_as_of_is_what_was_there_whatever_was_put_deleted_and_undeleted_since(
    steps: list[tuple[str, str, bytes]],
) -> None:
    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE artifact, storage_location, retired_artifact, deleted_artifact_event CASCADE")
    recorded: list[tuple[datetime, dict[str, tuple[Any, str]]]] = []
    for what, name, data in steps:
        play(what, name, data)
        recorded.append((tick(), living()))
    for moment, expected in recorded:
        assert as_of(moment) == expected
        entries = list(queries.all_entries("", moment))
        assert queries.tree("", moment) == rules.tree_of(entries)
    (first, before), (second, after) = recorded[0], recorded[-1]
    found = {changed.uri: changed for changed in queries.changes("", first, second)}
    assert set(found) == {uri for uri in before.keys() | after.keys() if before.get(uri) != after.get(uri)}


@pytest.mark.usefixtures("inventory")
def test_a_namespace_is_answered_in_pages_in_the_order_of_uris() -> None:
    for number in range(7):
        put(f"cadc:A/{number}", b"one")
    put("cadc:B/1", b"one")
    moment = tick()
    for number in range(0, 7, 2):
        delete(f"cadc:A/{number}")
    assert len(as_of(moment)) == 8
    pages, after = [], ""
    while page := queries.entries_page("cadc:A/", moment, after=after, limit=3):
        pages.append([entry.uri for entry in page])
        after = page[-1].uri
    assert pages == [
        ["cadc:A/0", "cadc:A/1", "cadc:A/2"],
        ["cadc:A/3", "cadc:A/4", "cadc:A/5"],
        ["cadc:A/6"],
    ]


@pytest.mark.usefixtures("inventory")
def test_an_artifact_that_is_known_but_not_stored_has_a_history_too() -> None:
    row = artifact_row("cadc:A/1")
    insert_artifact_row(row)
    moment = tick()
    delete("cadc:A/1")
    assert as_of(moment) == {"cadc:A/1": (row.id, row.content_checksum)}
    assert as_of(tick()) == {}
    assert RetiredArtifact.objects.get().state == RetiredArtifact.State.PURGED


@pytest.mark.usefixtures("inventory")
def test_a_page_reads_a_page_and_not_the_table() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO retired_artifact (id, uri, content_checksum, content_length, born_at, died_at, ended_at, storage_id, "
            "storage_bucket, state, state_at) SELECT gen_random_uuid(), 'cadc:A/' || lpad(n::text, 9, '0'), 'md5:0', 1, "
            "now() - interval '2 hours', now(), now(), '', '', 'purged', now() FROM generate_series(1, 20000) n"
        )
        cursor.execute("ANALYZE retired_artifact")
        bounds: dict[str, Any] = {
            "after": "cadc:A/000010000",
            "before": "cadc:A0",
            "moment": database_now() - timedelta(hours=1),
        }
        cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {queries._PAGE_SQL}", bounds | {"limit": 10})
        plan = cursor.fetchone()[0][0]["Plan"]

    def rows_read(node: dict[str, Any]) -> float:
        own = node["Actual Rows"] + node.get("Rows Removed by Filter", 0) if "Scan" in node["Node Type"] else 0
        return float(own) + sum(map(rows_read, node.get("Plans", [])))

    assert rows_read(plan) < 100


@pytest.mark.usefixtures("inventory")
def test_the_future_and_the_forgotten_past_are_refused() -> None:
    with pytest.raises(InvalidRequestError, match="future"):
        queries.checked_moment(database_now() + timedelta(minutes=1))
    before = tick()
    assert queries.checked_moment(before) == before
    SnapshotMark.objects.create(id=1, history_begins_at=tick())
    with pytest.raises(MomentGoneError, match="forgotten"):
        queries.checked_moment(before)


@pytest.fixture(params=["site_service.urls", "global_inventory.urls"])
def reader(request: pytest.FixtureRequest, inventory: InventoryIdentity, settings: Settings) -> Client:
    settings.ROOT_URLCONF = request.param
    token = create_api_token(name="reader", grants=frozenset({Grant.READ}), now=datetime.now(UTC))
    return Client(headers={"authorization": f"Bearer {token}"})


def test_both_roles_list_as_of_a_moment_in_pages_and_as_a_stream(reader: Client) -> None:
    put("cadc:A/1", b"one")
    put("cadc:A/2", b"one")
    moment = tick().isoformat().replace("+00:00", "Z")
    delete("cadc:A/1")
    put("cadc:A/2", b"two")
    put("cadc:A/3", b"one")
    page = reader.get("/artifacts", {"namespace": "cadc:A/", "as_of": moment, "limit": "1"}).json()
    assert [item["uri"] for item in page["items"]] == ["cadc:A/1"]
    page = reader.get(f"/artifacts{page['next']}").json()
    assert [(item["uri"], item["contentLength"]) for item in page["items"]] == [("cadc:A/2", 3)]
    stream = reader.get("/artifacts", {"as_of": moment, "format": "ndjson"})
    lines = b"".join(stream.streaming_content).splitlines()  # type: ignore[attr-defined]  # a stream
    assert [json.loads(line)["uri"] for line in lines] == ["cadc:A/1", "cadc:A/2"]


@pytest.mark.parametrize("text", ["yesterday", "2026-01-01", "2026-01-01T00:00:00", "2026-01-01T00:00:00 00:00"])
def test_a_time_without_a_zone_is_no_moment(reader: Client, text: str) -> None:
    answer = reader.get("/artifacts", {"as_of": text})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")


def test_a_forgotten_moment_is_answered_with_its_reason(reader: Client) -> None:
    moment = tick()
    SnapshotMark.objects.create(id=1, history_begins_at=tick())
    answer = reader.get("/artifacts", {"as_of": moment.isoformat()})
    assert (answer.status_code, answer.json()["code"]) == (410, "moment_gone")
    assert answer.json()["since"]
