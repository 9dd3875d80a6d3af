"""What a snapshot names comes back, bytes and all, and nothing else is touched."""

from __future__ import annotations

import json
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from pytest_django import Settings

from datamodel import operations as model_operations
from datamodel.models import Artifact, RetiredArtifact
from datamodel.snapshots import operations, queries
from datamodel.snapshots.models import Snapshot, SnapshotSchedule
from datamodel.snapshots.tasks import count_held
from datamodel.uris import Namespace
from site_service.retention import operations as removal, queries as retention
from site_service.snapshots import restore
from site_service.storage.contract import ArtifactStore
from tests.datamodel.snapshots.moments import tick
from tests.site_service.files.requests import body_of, put

NAMES = ["cadc:A/1", "cadc:A/2", "cadc:A/3", "cadc:A/4"]


def store_file(client: Client, uri: str, data: bytes) -> None:
    assert put(client, data, path=f"/files/{uri}").status_code in {200, 201}


def contents(client: Client) -> dict[str, bytes]:
    uris = Artifact.objects.order_by("uri").values_list("uri", flat=True)
    return {uri: body_of(client.get(f"/files/{uri}")) for uri in uris}


def sweep(store: ArtifactStore) -> int:
    tick()
    return sum(removal.purge_retired(store=store, artifact_id=identity) for identity in retention.due_retired())


def restored(client: Client, **body: object) -> dict[str, Any]:
    answer = client.post("/snapshots/one/restore", json.dumps(body), content_type="application/json")
    assert answer.status_code == 200, answer.content
    found: dict[str, Any] = answer.json()
    return found


@pytest.fixture
def damaged(client: Client, settings: Settings) -> Snapshot:
    """A snapshot, after which one file was deleted, one replaced, one deleted and put again, and one came."""
    settings.INVENTORY_RETENTION_SECONDS = 0
    settings.INVENTORY_TRANSFER_SECONDS = 0
    for uri in NAMES:
        store_file(client, uri, f"first {uri}".encode())
    answer = client.post("/snapshots", {"name": "one", "namespace": "cadc:A/"}, content_type="application/json")
    assert (answer.status_code, answer.json()["state"]) == (201, "kept")
    tick()
    client.delete("/files/cadc:A/1")
    store_file(client, "cadc:A/2", b"second")
    client.delete("/files/cadc:A/3")
    store_file(client, "cadc:A/3", b"first cadc:A/3")
    store_file(client, "cadc:A/new", b"came later")
    return queries.find("one")


@pytest.mark.usefixtures("damaged")
def test_all_bytes_of_a_snapshot_come_back_after_everything_was_swept(client: Client, store: ArtifactStore) -> None:
    store_file(client, "cadc:B/1", b"not in it")
    client.delete("/files/cadc:B/1")
    assert sweep(store) == 1
    before = contents(client)
    preview = restored(client)
    assert {item["uri"]: item["outcome"] for item in preview["items"]} == {
        "cadc:A/1": "undeleted",
        "cadc:A/2": "replaced",
    }
    assert contents(client) == before
    ids = dict(Artifact.objects.values_list("uri", "id"))
    assert restored(client, preview=False) == preview
    assert contents(client) == {uri: f"first {uri}".encode() for uri in NAMES} | {"cadc:A/new": b"came later"}
    assert Artifact.objects.get(uri="cadc:A/3").id == ids["cadc:A/3"]
    assert Artifact.objects.get(uri="cadc:A/2").id != ids["cadc:A/2"]
    assert restored(client, preview=False) == {"items": [], "next": None}


@pytest.mark.usefixtures("damaged")
def test_restoring_goes_on_where_a_page_ended_and_from_the_start_after_a_crash(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Crash(BaseException):
        pass

    undelete = model_operations.undelete_artifact

    def die_at_the_second(*, retired_id: Any, replaces: bool) -> Any:
        if RetiredArtifact.objects.get(id=retired_id).uri == "cadc:A/2":
            raise Crash
        return undelete(retired_id=retired_id, replaces=replaces)

    with monkeypatch.context() as patched:
        patched.setattr(model_operations, "undelete_artifact", die_at_the_second)
        with pytest.raises(Crash):
            restore.restore_snapshot(snapshot=queries.find("one"), after="", limit=100, is_preview=False)
    seen, after = [], ""
    while True:
        page = restored(client, preview=False, after=after, limit=1)
        seen += [item["uri"] for item in page["items"]]
        if page["next"] is None:
            break
        after = page["next"]
    assert seen == ["cadc:A/2"]
    assert {uri: data for uri, data in contents(client).items() if uri in NAMES} == {
        uri: f"first {uri}".encode() for uri in NAMES
    }


@pytest.mark.usefixtures("damaged")
def test_what_is_not_kept_here_is_refused_with_the_reason_and_stops_nothing(client: Client) -> None:
    RetiredArtifact.objects.filter(uri="cadc:A/1").update(state="purged")
    items = restored(client, preview=False)["items"]
    assert [(item["uri"], item["outcome"]) for item in items] == [("cadc:A/1", "refused"), ("cadc:A/2", "replaced")]
    assert "not kept at this site" in items[0]["reason"]


@pytest.mark.usefixtures("damaged")
def test_restored_bytes_are_still_held_when_they_are_deleted_again(client: Client, store: ArtifactStore) -> None:
    restored(client, preview=False)
    tick()
    for uri in NAMES:
        client.delete(f"/files/{uri}")
    sweep(store)
    restored(client, preview=False)
    assert {uri: data for uri, data in contents(client).items() if uri in NAMES} == {
        uri: f"first {uri}".encode() for uri in NAMES
    }


BAD_BODIES: list[object] = [{"preview": "no"}, {"limit": 0}, {"limit": 10_000}, {"limit": True}, {"after": 1}, [], "x"]


@pytest.mark.usefixtures("damaged")
@pytest.mark.parametrize("body", BAD_BODIES)
def test_what_cannot_be_asked_is_refused(client: Client, body: object) -> None:
    answer = client.post("/snapshots/one/restore", json.dumps(body), content_type="application/json")
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")


def command(*arguments: str) -> str:
    out = StringIO()
    call_command("snapshot", *arguments, stdout=out, stderr=StringIO())
    return out.getvalue()


@pytest.mark.usefixtures("damaged")
def test_the_command_lists_compares_exports_verifies_restores_and_deletes(client: Client) -> None:
    assert "kept" in command("list")
    assert [json.loads(line)["name"] for line in command("list", "--json").splitlines()] == ["one"]
    assert command("diff", "one").splitlines()[-1] == "1 added, 1 changed, 1 removed, 1 renewed"
    assert [line.split(",")[0] for line in command("manifest", "one", "--format", "csv").splitlines()] == [
        "uri",
        *NAMES,
    ]
    assert json.loads(command("verify", "one"))["holds"]
    assert "preview" in command("restore", "one")
    assert command("restore", "one", "--apply").splitlines() == [
        "replaced: 1 files, 14 bytes",
        "undeleted: 1 files, 14 bytes",
    ]
    assert "as it was" in command("restore", "one", "--apply")
    assert "kept" in command("create", "two", "cadc:A/")
    assert command("diff", "one", "two").splitlines()[-1] == "1 added, 3 renewed"
    command("delete", "one")
    with pytest.raises(CommandError, match="no snapshot one"):
        command("verify", "one")
    assert client.get("/snapshots/two/verification").json()["holds"]


@pytest.mark.usefixtures("site")
def test_the_command_makes_and_changes_a_schedule() -> None:
    command("schedule", "nightly", "cadc:A/", "--daily", "7")
    command("schedule", "nightly", "cadc:A/", "--daily", "14", "--yearly", "3")
    schedule = SnapshotSchedule.objects.get()
    assert (schedule.hourly, schedule.daily, schedule.yearly) == (0, 14, 3)
    for wrong in (("nightly", "cadc:A/"), ("a/b", "cadc:A/", "--daily", "1"), ("a", "cadc:A/", "--daily", "-1")):
        with pytest.raises(CommandError):
            command("schedule", *wrong)


@pytest.mark.usefixtures("damaged")
def test_the_manifest_and_the_diff_are_streams_and_pages(client: Client) -> None:
    lines = body_of(client.get("/snapshots/one/manifest")).splitlines()
    assert [json.loads(line)["uri"] for line in lines] == NAMES
    page = client.get("/snapshots/one/diff", {"limit": "3"}).json()
    assert [(item["uri"], item["change"]) for item in page["items"]] == [
        ("cadc:A/1", "removed"),
        ("cadc:A/2", "changed"),
        ("cadc:A/3", "renewed"),
    ]
    rest = client.get(f"/snapshots/one/diff{page['next']}").json()
    assert ([item["change"] for item in rest["items"]], rest["next"]) == (["added"], None)
    assert len(body_of(client.get("/snapshots/one/diff", {"format": "ndjson"})).splitlines()) == 4


def test_snapshots_are_listed_in_pages_the_latest_first(client: Client) -> None:
    for number in range(5):
        namespace = Namespace.parse("cadc:A/" if number % 2 else "cadc:B/")
        operations.create_snapshot(name=f"s{number}", namespace=namespace, created_by="test")
    seen, query = [], "?limit=2"
    while query:
        page = client.get(f"/snapshots{query}").json()
        seen += [item["name"] for item in page["items"]]
        query = page["next"]
    assert seen == ["s4", "s3", "s2", "s1", "s0"]
    only = client.get("/snapshots", {"namespace": "cadc:A/"}).json()["items"]
    assert [item["name"] for item in only] == ["s3", "s1"]
    assert client.get("/snapshots", {"after": "x"}).status_code == 400


@pytest.mark.usefixtures("damaged")
def test_snapshots_and_what_they_hold_are_metrics(client: Client) -> None:
    count_held()
    text = client.get("/metrics").content.decode()
    assert 'inventory_snapshots{state="kept"} 1.0' in text
    assert 'inventory_snapshots{state="pinning"} 0.0' in text
    assert "inventory_pinned_artifacts 3.0" in text
    assert "inventory_pinned_bytes 42.0" in text
    assert 'inventory_collector_failed{module="datamodel.snapshots.metrics"} 0.0' in text


@pytest.mark.usefixtures("site")
def test_as_of_does_not_say_what_was_stored(client: Client) -> None:
    answer = client.get("/artifacts", {"as_of": tick().isoformat(), "stored": "true"})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")


@pytest.mark.parametrize(
    "body", ["", "x", "[]", '{"name": 1, "namespace": "cadc:A/"}', '{"name": "a", "namespace": "x"}']
)
def test_what_is_no_snapshot_is_refused(client: Client, body: str) -> None:
    assert client.post("/snapshots", body, content_type="application/json").status_code == 400
