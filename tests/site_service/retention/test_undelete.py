"""What was deleted or replaced lives again: under a new id, with the old bytes, later than its end; or a clear refusal."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from io import StringIO
from typing import Any
from uuid import UUID

import pytest
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from datamodel import operations, rows
from datamodel.audit.models import AuditEntry
from datamodel.audit.pending import pending
from datamodel.errors import ArtifactNotFoundError, InventoryError, StateConflictError
from datamodel.models import Artifact, DeletedArtifactEvent, RetiredArtifact, StorageLocation, StorageLocationEvent
from datamodel.snapshots.models import SnapshotMark
from site_service.retention import operations as removal, queries
from site_service.storage.contract import ArtifactStore, InvalidObject
from tests.datamodel.snapshots.moments import tick
from tests.factories import artifact_row, insert_artifact_row, new_content
from tests.site_service.files.requests import PATH, body_of, put

URI = PATH.removeprefix("/files/")


def undelete(client: Client, status: int = 200, **asked: Any) -> Any:
    response = client.post("/undelete", json.dumps(asked), "application/json")
    assert response.status_code == status, response.content
    return response.json()


def content(client: Client, path: str = PATH) -> bytes | None:
    response = client.get(path)
    return body_of(response) if response.status_code == 200 else None


def test_deleted_content_lives_again_under_a_new_id_later_than_its_end(client: Client) -> None:
    put(client, b"one", content_type="text/x-own")
    before = Artifact.objects.get()
    client.delete(PATH)
    (item,) = undelete(client, uri=URI)["items"]
    after = Artifact.objects.get()
    assert (item["uri"], item["outcome"], UUID(item["id"])) == (URI, "undeleted", after.id)
    assert after.id != before.id
    assert after.id.hex[12] == "8"
    assert DeletedArtifactEvent.objects.get().id == before.id
    assert after.content_last_modified > RetiredArtifact.objects.get().died_at
    assert (after.content_checksum, after.content_type) == (before.content_checksum, "text/x-own")
    assert content(client) == b"one"
    assert RetiredArtifact.objects.get().state == RetiredArtifact.State.RESTORED


def test_its_position_is_answered_and_bytes_are_no_longer_due(client: Client, settings: Settings) -> None:
    put(client, b"one")
    client.delete(PATH)
    response = client.post("/undelete", json.dumps({"uri": URI}), "application/json")
    assert response["x-inventory-position"].rpartition(".")[2] == str(Artifact.objects.get().txid)
    settings.INVENTORY_RETENTION_SECONDS = 0
    RetiredArtifact.objects.update(died_at=timezone.now() - timedelta(days=400))
    assert queries.due_retired() == []


def test_a_repeat_finds_nothing_more_to_undelete(client: Client) -> None:
    put(client, b"one")
    client.delete(PATH)
    retired = RetiredArtifact.objects.get()
    first = operations.undelete_artifact(retired_id=retired.id)
    assert operations.undelete_artifact(retired_id=retired.id).artifact == first.artifact
    assert "no deleted or replaced content of" in undelete(client, 404, uri=URI)["detail"]


def refusals() -> list[tuple[str, str, str]]:
    """What the audit has of those who were not let."""
    pending.write(everything=True)
    rows = AuditEntry.objects.filter(outcome="refused").order_by("id")
    return list(rows.values_list("action", "subject", "reason"))


def test_what_was_replaced_comes_back_only_if_that_is_said_and_the_present_is_retired_in_turn(client: Client) -> None:
    put(client, b"one")
    put(client, b"second")
    assert "has other content now" in undelete(client, 409, uri=URI)["detail"]
    assert refusals() == [("undelete", URI, "other_content")]
    assert content(client) == b"second"
    (item,) = undelete(client, uri=URI, replace=True)["items"]
    assert item["outcome"] == "replaced"
    assert content(client) == b"one"
    kept = RetiredArtifact.objects.get(state=RetiredArtifact.State.RETAINED)
    assert kept.content_length == len(b"second")
    undelete(client, uri=URI, replace=True)
    assert content(client) == b"second"


def test_as_of_a_time_is_the_content_that_lived_then(client: Client) -> None:
    times: list[datetime] = []
    for data in (b"one", b"second", b"third one"):
        put(client, data)
        times.append(rows.database_now())
    client.delete(PATH)
    for data, when in zip((b"one", b"second", b"third one"), times, strict=True):
        undelete(client, uri=URI, asOf=when.isoformat(), replace=True)
        assert content(client) == data
    early = Artifact.objects.get().content_last_modified - timedelta(days=1)
    assert "that lived at" in undelete(client, 404, uri=URI, asOf=early.isoformat())["detail"]


def test_a_known_artifact_that_lacks_these_very_bytes_gets_them(client: Client) -> None:
    put(client, b"one")
    client.delete(PATH)
    retired = RetiredArtifact.objects.get()
    operations.undelete_artifact(retired_id=retired.id)
    located = operations.detach_location(artifact_id=Artifact.objects.get().id)
    assert located is not None
    RetiredArtifact.objects.update(state=RetiredArtifact.State.RETAINED)
    (item,) = undelete(client, uri=URI)["items"]
    assert (item["outcome"], Artifact.objects.count()) == ("attached", 1)
    assert StorageLocationEvent.objects.get().id == Artifact.objects.get().id
    assert content(client) == b"one"


@pytest.mark.parametrize("state", ["removing", "purged"])
def test_bytes_that_are_going_or_gone_never_come_back(client: Client, state: str) -> None:
    put(client, b"one")
    client.delete(PATH)
    RetiredArtifact.objects.update(state=state)
    undelete(client, 404, uri=URI)
    with pytest.raises(StateConflictError, match="not kept any more"):
        operations.undelete_artifact(retired_id=RetiredArtifact.objects.get().id)
    assert not Artifact.objects.exists()
    assert refusals() == [("undelete", URI, "not_kept")]


def test_of_purge_and_undelete_at_once_exactly_one_wins(client: Client, store: ArtifactStore) -> None:
    for _ in range(5):
        put(client, b"one")
        client.delete(PATH)
        RetiredArtifact.objects.filter(state="retained").update(died_at=timezone.now() - timedelta(days=400))
        retired = RetiredArtifact.objects.get(state="retained")
        purged: list[bool] = []
        undeleted: list[bool] = []

        def acting(act: Callable[[], object], into: list[bool]) -> threading.Thread:
            def run() -> None:
                try:
                    into.append(act() is not False)
                except InventoryError:
                    into.append(False)
                finally:
                    connection.close()

            return threading.Thread(target=run)

        both = [
            acting(lambda: removal.purge_retired(store=store, artifact_id=retired.id), purged),  # noqa: B023  # joined below
            acting(lambda: operations.undelete_artifact(retired_id=retired.id), undeleted),  # noqa: B023  # joined below
        ]
        for thread in both:
            thread.start()
        for thread in both:
            thread.join()
        assert purged != undeleted
        assert content(client) == (b"one" if undeleted == [True] else None)
        if undeleted == [True]:
            client.delete(PATH)
            RetiredArtifact.objects.filter(state="retained").delete()


def test_facts_kept_with_the_bytes_name_the_new_id(client: Client, store: ArtifactStore) -> None:
    put(client, b"one")
    client.delete(PATH)
    undelete(client, uri=URI)
    location = StorageLocation.objects.get()
    assert queries.reattached() == [location.artifact_id]
    removal.follow_facts(store=store, artifact_id=location.artifact_id)
    found = store.stat(location.storage_id)
    assert not isinstance(found, InvalidObject)
    assert found.facts.artifact_id == location.artifact_id


def names(client: Client, *those: str) -> None:
    for name in those:
        put(client, name.encode(), path=f"/files/cadc:TEST/{name}")


def test_a_namespace_is_previewed_then_undeleted_page_by_page(client: Client) -> None:
    names(client, "a", "b", "c", "other/d")
    put(client, b"elsewhere", path="/files/cadc:ELSE/e")
    for path in ("TEST/a", "TEST/b", "TEST/c", "ELSE/e"):
        client.delete(f"/files/cadc:{path}")
    preview = undelete(client, namespace="cadc:TEST/", preview=True)
    assert [(item["uri"], item["outcome"]) for item in preview["items"]] == [
        (f"cadc:TEST/{name}", "undeleted") for name in "abc"
    ]
    assert Artifact.objects.count() == 1
    first = undelete(client, namespace="cadc:TEST/", limit=2)
    assert (len(first["items"]), first["next"]) == (2, "cadc:TEST/b")
    rest = undelete(client, namespace="cadc:TEST/", limit=2, after=first["next"])
    assert [item["uri"] for item in rest["items"]] == ["cadc:TEST/c"]
    assert "next" not in rest
    assert sorted(Artifact.objects.values_list("uri", flat=True)) == [
        "cadc:TEST/a",
        "cadc:TEST/b",
        "cadc:TEST/c",
        "cadc:TEST/other/d",
    ]


def test_a_namespace_as_of_a_time_is_what_lived_then_and_what_came_later_is_left(client: Client) -> None:
    names(client, "a", "b")
    when = rows.database_now()
    put(client, b"new content", path="/files/cadc:TEST/a")
    client.delete("/files/cadc:TEST/b")
    names(client, "c")
    refused = undelete(client, namespace="cadc:TEST/", asOf=when.isoformat(), preview=True)["items"]
    assert [(item["uri"][-1], item["outcome"]) for item in refused] == [("a", "refused"), ("b", "undeleted")]
    done = undelete(client, namespace="cadc:TEST/", asOf=when.isoformat(), replace=True)["items"]
    assert [(item["uri"][-1], item["outcome"]) for item in done] == [("a", "replaced"), ("b", "undeleted")]
    assert [content(client, f"/files/cadc:TEST/{name}") for name in "abc"] == [b"a", b"b", b"c"]


def lived(name: str, *, born: int, ended: int | None = None, heard: int | None = None, data: bytes = b"") -> UUID:
    """An artifact that is stored here, by hours ago: when it was born, deleted somewhere, and when this site learnt of that."""
    now = rows.database_now()
    row = artifact_row(f"cadc:TEST/{name}", data or name.encode(), content_last_modified=now - timedelta(hours=born))
    insert_artifact_row(row, new_content(data or name.encode()).located)
    if ended is not None:
        with transaction.atomic():
            rows.insert_tombstone(row.id, row.uri, deleted_at=now - timedelta(hours=ended))
            rows.retire_artifacts([row.id], died_at=now - timedelta(hours=ended if heard is None else heard))
    return row.id


def test_as_of_a_time_is_what_the_inventory_was_then_by_the_clock_that_all_share(client: Client) -> None:
    """Not by when this site heard of an end, nor by its own clock."""
    lived("ended-before-and-heard-after", born=9, ended=6, heard=4)
    lived("ended-after-by-a-clock-behind", born=9, ended=4, heard=6)
    lived("replaced", born=9, ended=7)
    lived("replaced", born=7, ended=3, data=b"second")
    lived("lost-a-collision-later", born=9, ended=2)
    lived("lost-a-collision-later", born=8, data=b"winner")
    lived("still-there", born=9)
    lived("came-later", born=1)
    then = rows.database_now() - timedelta(hours=5)
    listed = client.get("/artifacts", {"namespace": "cadc:TEST/", "as_of": then.isoformat()}).json()["items"]
    assert {item["uri"]: item["contentLength"] for item in listed} == {
        "cadc:TEST/ended-after-by-a-clock-behind": 29,
        "cadc:TEST/lost-a-collision-later": 6,
        "cadc:TEST/replaced": 6,
        "cadc:TEST/still-there": 11,
    }
    before = {row.uri: row.content_checksum for row in Artifact.objects.all()}
    asked: dict[str, Any] = {"namespace": "cadc:TEST/", "asOf": then.isoformat(), "replace": True}
    preview = undelete(client, preview=True, **asked)["items"]
    assert {item["uri"] for item in preview} == {item["uri"] for item in listed} - before.keys()
    assert undelete(client, **asked)["items"] == preview
    living = {row.uri: row.content_checksum for row in Artifact.objects.all()}
    assert living == before | {item["uri"]: item["contentChecksum"] for item in listed}
    assert undelete(client, **asked)["items"] == []
    (item,) = undelete(client, uri="cadc:TEST/replaced", asOf=then.isoformat())["items"]
    assert item["outcome"] == "unchanged"
    gone = undelete(client, 404, uri="cadc:TEST/ended-before-and-heard-after", asOf=then.isoformat())
    assert "that lived at" in gone["detail"]


def test_as_of_a_time_brings_bytes_back_that_lived_under_several_ids_since(client: Client) -> None:
    put(client, b"one")
    when = tick()
    client.delete(PATH)
    undelete(client, uri=URI)
    client.delete(PATH)
    undelete(client, uri=URI, asOf=when.isoformat())
    assert content(client) == b"one"


def test_what_is_asked_for_is_what_ended_last_even_if_both_ends_were_heard_of_at_once(client: Client) -> None:
    for number in range(4):
        lived(f"twice{number}", born=9, ended=8, heard=1)
        lived(f"twice{number}", born=8, ended=7, heard=1, data=b"the second")
    RetiredArtifact.objects.update(died_at=rows.database_now())
    assert {item["contentLength"] for item in undelete(client, namespace="cadc:TEST/", preview=True)["items"]} == {10}
    for number in range(4):
        undelete(client, uri=f"cadc:TEST/twice{number}")
    assert set(Artifact.objects.values_list("content_length", flat=True)) == {10}


def test_what_lives_again_is_later_than_its_end_by_any_clock(client: Client) -> None:
    lived("ahead", born=9, ended=-2, heard=0)
    undelete(client, uri="cadc:TEST/ahead")
    assert Artifact.objects.get().content_last_modified > DeletedArtifactEvent.objects.get().deleted_at


def test_a_time_that_cannot_be_known_is_refused(client: Client) -> None:
    put(client, b"one")
    client.delete(PATH)
    SnapshotMark.objects.create(id=1, history_begins_at=rows.database_now())
    early = rows.database_now() - timedelta(days=1)
    either: list[dict[str, Any]] = [{"uri": URI}, {"namespace": "cadc:"}]
    for what in either:
        assert undelete(client, 410, asOf=early.isoformat(), **what)["code"] == "moment_gone"
        late = rows.database_now() + timedelta(days=1)
        assert "future" in undelete(client, 400, asOf=late.isoformat(), **what)["detail"]


@pytest.mark.parametrize(
    ("asked", "word"),
    [
        ({}, "either a uri or a namespace"),
        ({"uri": URI, "namespace": "cadc:TEST/"}, "either a uri or a namespace"),
        ({"uri": "no uri"}, "scheme"),
        ({"namespace": "cadc:TEST"}, "must end with"),
        ({"uri": URI, "asOf": "yesterday"}, "asOf"),
        ({"namespace": "cadc:TEST/", "limit": 1001}, "limit"),
    ],
)
def test_a_request_that_cannot_be_understood_says_why(client: Client, asked: dict[str, Any], word: str) -> None:
    assert word in json.dumps(undelete(client, 400, **asked))


def test_who_may_not_write_may_not_undelete(client: Client) -> None:
    del client
    assert Client().post("/undelete", json.dumps({"uri": URI}), "application/json").status_code == 401


def test_an_unknown_id_is_told(client: Client) -> None:
    del client
    with pytest.raises(ArtifactNotFoundError):
        operations.undelete_artifact(retired_id=UUID(int=1))


def test_an_operator_sees_until_when_content_is_kept_and_undeletes_it(client: Client, settings: Settings) -> None:
    settings.INVENTORY_RETENTION_SECONDS = 3600
    names(client, "a", "b")
    client.delete("/files/cadc:TEST/a")
    put(client, b"new content", path="/files/cadc:TEST/b")
    operator = Client()
    operator.force_login(get_user_model().objects.create_superuser("operator", password="any"))
    url = "/admin/datamodel/retiredartifact/"
    died_at = RetiredArtifact.objects.get(uri="cadc:TEST/a").died_at
    assert f"{died_at + timedelta(hours=1):%Y-%m-%d %H:%M} UTC" in operator.get(url).content.decode()
    ids = [str(identity) for identity in RetiredArtifact.objects.values_list("id", flat=True)]
    page = operator.post(url, {"action": "undelete", "_selected_action": ids}, follow=True).content.decode()
    assert "1 undeleted, each under a new id" in page
    assert "has other content now" in page
    assert content(client, "/files/cadc:TEST/a") == b"a"


def test_the_command_previews_a_namespace_and_acts_when_told(client: Client) -> None:
    names(client, "a", "b")
    for name in "ab":
        client.delete(f"/files/cadc:TEST/{name}")
    assert told("cadc:TEST/") == "undeleted: 2 files, 2 bytes\nThis was a preview; --apply does it.\n"
    assert told("cadc:TEST/a").startswith("cadc:TEST/a: undeleted, id ")
    assert told("cadc:TEST/", apply=True) == "undeleted: 1 files, 1 bytes\n"
    assert told("cadc:TEST/") == "nothing that was deleted or replaced under cadc:TEST/ is kept here\n"
    with pytest.raises(CommandError, match="no deleted or replaced content"):
        told("cadc:TEST/a")
    with pytest.raises(CommandError, match="write it as"):
        call_command("undelete", "cadc:TEST/", "--as-of", "2026-01-31")


def told(what: str, *, apply: bool = False) -> str:
    out = StringIO()
    call_command("undelete", what, apply=apply, stdout=out)
    return out.getvalue()
