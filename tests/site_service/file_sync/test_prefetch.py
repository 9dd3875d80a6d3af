"""Small files that come many in one answer: what the answer may be, and that whatever is wrong with it costs nothing but a GET."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from pytest_django import Settings

from datamodel import operations
from datamodel.errors import CallerError
from datamodel.keys import replace_trusted_keys
from datamodel.models import ObsoleteStorageLocation, RemoteInventory, StorageLocation
from datamodel.preauth import Methods, SigningKey, TransferClaims
from datamodel.uris import ArtifactUri, Namespace
from site_service.file_sync import attempts, operations as sync_operations, prefetch, scan
from site_service.file_sync.download import Limits
from site_service.file_sync.models import SyncAttempt
from site_service.file_sync.operations import BatchResult, sync_batch
from site_service.file_sync.prefetch import SMALL_BYTES, Prefetched
from site_service.file_sync.rules import Source, Wanted
from site_service.policy.operations import set_policy
from site_service.storage.contract import FreeSpace, StoredObject, Write
from tests.fakes import files
from tests.fakes.files import Answer, FakeSite, Fault
from tests.site_service.conftest import TOKEN
from tests.site_service.file_sync.conftest import Federation, wanted
from tests.site_service.server import SiteProcess

LIMITS = Limits(connect_seconds=5, read_seconds=5, min_bytes_per_second=0)
CONTENTS = {f"cadc:{number}": b"%d" % number * 300 for number in range(4)}
SIZE = sum(map(len, CONTENTS.values()))
ALL = [BatchResult(stored=len(CONTENTS), stored_bytes=SIZE)]


def publish(federation: Federation, *holders: FakeSite) -> None:
    for uri, content in CONTENTS.items():
        federation.publish(uri, content, *holders)


def assert_all_are_right(federation: Federation) -> None:
    locations = StorageLocation.objects.select_related("artifact")
    found = {
        location.artifact.uri: federation.store.open(
            location.storage_id, expected_length=location.artifact.content_length
        ).read()
        for location in locations
    }
    assert found == CONTENTS


def test_small_files_come_in_one_answer(federation: Federation, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="inventory.sync")
    publish(federation)
    assert federation.tick() == ALL
    assert_all_are_right(federation)
    assert not federation.alpha.asked
    assert [sorted(batch) for batch in federation.alpha.batches] == [sorted(CONTENTS)]
    ends = [(record.getMessage(), record.__dict__["facts"]) for record in caplog.records if record.levelname == "INFO"]
    (ahead,) = [facts for event, facts in ends if event == "END event=prefetch"]
    assert (ahead["site"], ahead["files"], ahead["came"], ahead["result"]) == ("alpha", 4, 4, "ok")
    assert [facts["sources"] for event, facts in ends if event == "END event=sync"] == ["alpha"] * 4


def test_one_small_file_is_simply_asked_for(federation: Federation) -> None:
    federation.publish("cadc:0", b"x")
    federation.publish("cadc:empty", b"")
    federation.publish("cadc:large", b"x" * (SMALL_BYTES + 1))
    assert federation.tick() == [BatchResult(stored=3, stored_bytes=SMALL_BYTES + 2)]
    assert (len(federation.alpha.asked), federation.alpha.batches) == (2, [])


def test_each_site_is_asked_for_what_it_is_the_best_source_of_and_sees_no_other_permission(
    federation: Federation,
) -> None:
    for number in range(6):
        federation.publish(f"cadc:{number}", b"x", federation.gamma if number % 2 else federation.alpha)
    assert federation.tick() == [BatchResult(stored=6, stored_bytes=6)]
    assert [sorted(batch) for batch in federation.alpha.batches] == [["cadc:0", "cadc:2", "cadc:4"]]
    assert [sorted(batch) for batch in federation.gamma.batches] == [["cadc:1", "cadc:3", "cadc:5"]]
    assert not federation.alpha.asked + federation.gamma.asked


@pytest.mark.parametrize(("bound", "value"), [("_MOST_FILES", 3), ("_MOST_BYTES", 1100)])
def test_an_answer_is_bounded_in_number_and_bytes(
    federation: Federation, monkeypatch: pytest.MonkeyPatch, bound: str, value: int
) -> None:
    monkeypatch.setattr(prefetch, bound, value)
    for number in range(7):
        federation.publish(f"cadc:{number}", b"%d" % number * 300)
    assert federation.tick() == [BatchResult(stored=7, stored_bytes=2100)]
    assert [len(batch) for batch in federation.alpha.batches] == [3, 3]
    assert len(federation.alpha.asked) == 1


# What becomes of one of the parts: it, or it and what follows, is asked for alone.
PART_FAULTS: list[tuple[str, Fault, int]] = [
    ("not found", files.status(404), 1),
    ("forbidden", files.status(403), 1),
    ("too large together", files.status(413), 1),
    ("broken", files.status(500), 1),
    ("moved", files.status(303, Location="http://127.0.0.1:9/x"), 1),
    ("another artifact", files.header("x-artifact-id", str(uuid.UUID(int=0))), 1),
    ("another Digest", files.header("Digest", "md5=1B2M2Y8AsgTpgAmY7PhCfg=="), 1),
    ("another Repr-Digest", files.header("Repr-Digest", f"sha-256=:{'A' * 43}=:"), 1),
    ("another length", files.shorter(3), 1),
    ("a flipped bit", files.flip(100), 1),
    ("cut", files.cut(100), 2),
    ("cut between two", files.cut(300), 1),
    ("without length", files.header("Content-Length", None), 2),
    ("with a strange length", files.header("Content-Length", "+300"), 2),
    ("larger than anything small", files.header("Content-Length", str(SMALL_BYTES + 1)), 2),
    ("with endless headers", files.header("X-Long", "x" * 70_000), 2),
]


@pytest.mark.parametrize(("fault", "alone"), [case[1:] for case in PART_FAULTS], ids=[case[0] for case in PART_FAULTS])
def test_a_part_that_is_not_right_is_asked_for_alone(federation: Federation, fault: Fault, alone: int) -> None:
    publish(federation)
    federation.alpha.faults.extend([files.well, files.well, fault])
    assert federation.tick() == ALL
    assert_all_are_right(federation)
    assert (len(federation.alpha.batches), len(federation.alpha.asked)) == (1, alone)
    assert not SyncAttempt.objects.exists()


def test_who_gave_wrong_bytes_with_others_is_named_in_the_end(
    federation: Federation, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="inventory.sync")
    publish(federation)
    federation.alpha.faults.extend([files.well, files.well, files.flip(100)])
    assert federation.tick() == ALL
    ends = [record.__dict__["facts"] for record in caplog.records if record.getMessage() == "END event=sync"]
    assert sorted(facts["sources"] for facts in ends) == ["alpha", "alpha", "alpha", "alpha,alpha"]


def without_the_last(answer: Answer) -> None:
    answer.body = answer.body[: answer.body.rindex(b"\r\n--limit\r\n")] + b"\r\n--limit--\r\n"


def with_one_more(answer: Answer) -> None:
    place = answer.body.rindex(b"\r\n--limit\r\n")
    answer.body = answer.body[:-11] + answer.body[place:]


def of_another_boundary(answer: Answer) -> None:
    answer.body = answer.body.replace(b"--limit", b"--other")


def of_plain_parts(answer: Answer) -> None:
    answer.body = answer.body.replace(b"application/http", b"text/plain")


def of_no_messages(answer: Answer) -> None:
    answer.body = answer.body.replace(b"HTTP/1.1 200", b"ICY 200")


def changed(**values: Any) -> Callable[[Answer], None]:
    def change(answer: Answer) -> None:
        for name, value in values.items():
            setattr(answer, name, value)

    return change


WHOLE_FAULTS: list[tuple[str, Callable[[Answer], None], int]] = [
    ("a part is missing", without_the_last, 1),
    ("a part too many", with_one_more, 0),
    ("of another boundary", of_another_boundary, 4),
    ("of plain parts", of_plain_parts, 4),
    ("of no messages", of_no_messages, 4),
    ("no multipart", changed(headers={"Content-Type": "text/html"}), 4),
    ("multipart of another kind", changed(headers={"Content-Type": "multipart/related; boundary=limit"}), 4),
    ("without a type", changed(headers={}), 4),
    ("nothing", changed(body=b""), 4),
    ("an endless line", changed(body=b"x" * 100_000), 4),
    ("a redirect", changed(status=303, headers={"Location": "http://127.0.0.1:9/batch"}), 4),
    ("cut at once", changed(is_cut=True, body=b""), 4),
]


@pytest.mark.parametrize(
    ("fault", "alone"), [case[1:] for case in WHOLE_FAULTS], ids=[case[0] for case in WHOLE_FAULTS]
)
def test_an_answer_that_is_something_else_costs_nothing_but_gets(
    federation: Federation, fault: Callable[[Answer], None], alone: int
) -> None:
    publish(federation)
    federation.alpha.batch_fault = fault
    assert federation.tick() == ALL
    assert_all_are_right(federation)
    assert (len(federation.alpha.batches), len(federation.alpha.asked)) == (1, alone)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 413, 501])
def test_a_source_without_the_door_is_remembered_for_a_while(federation: Federation, status: int) -> None:
    federation.alpha.batch_status = status
    publish(federation)
    assert federation.tick() == ALL
    for name in "abc":
        federation.publish(f"cadc:{name}", b"x")
    assert federation.tick() == [BatchResult(stored=3, stored_bytes=3)]
    assert (len(federation.alpha.batches), len(federation.alpha.asked)) == (1, 7)
    prefetch._without_door._until.clear()
    federation.alpha.batch_status = 200
    federation.publish("cadc:x", b"x")
    federation.publish("cadc:y", b"y")
    federation.tick()
    assert (len(federation.alpha.batches), len(federation.alpha.asked)) == (2, 7)


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_source_that_is_busy_is_asked_again_by_the_next_batch(federation: Federation, status: int) -> None:
    federation.alpha.batch_status = status
    publish(federation)
    assert federation.tick() == ALL
    federation.alpha.batch_status = 200
    federation.publish("cadc:x", b"x")
    federation.publish("cadc:y", b"y")
    federation.tick()
    assert (len(federation.alpha.batches), len(federation.alpha.asked)) == (2, 4)


def test_a_source_that_is_down_counts_as_one_that_could_not_be_reached(federation: Federation) -> None:
    publish(federation, federation.alpha, federation.gamma)
    federation.alpha.batch_status = 503
    federation.alpha.usually = files.status(503)
    assert federation.tick() == ALL
    # The others were asked first from then on.
    assert not federation.alpha.asked
    assert len(federation.gamma.asked) == len(CONTENTS)


def test_a_source_that_is_down_and_the_only_one_costs_two_requests(federation: Federation) -> None:
    publish(federation)
    federation.alpha.batch_status = 503
    federation.alpha.usually = files.status(503)
    assert federation.tick() == [BatchResult(failed=len(CONTENTS))]
    assert (len(federation.alpha.batches), len(federation.alpha.asked)) == (1, 1)


def test_a_silent_source_is_left_for_the_others(federation: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Limits, "configured", lambda: replace(LIMITS, read_seconds=0.2))
    publish(federation, federation.alpha, federation.gamma)
    released = threading.Event()
    federation.alpha.usually = files.silent(released)
    try:
        assert federation.tick() == ALL
    finally:
        released.set()
    assert (len(federation.alpha.batches), len(federation.alpha.asked)) == (1, 0)


def test_a_source_that_drips_is_left(alpha: FakeSite) -> None:
    alpha.usually = files.slow(0.01)
    limits = replace(LIMITS, min_bytes_per_second=100_000, window_seconds=0.05)
    failures, contributors = Prefetched(limits, lambda: None).fetch(choices(alpha))
    assert [failure.error.code for failure in failures] == ["remote_unavailable"]
    assert "too slow" in failures[0].error.detail
    assert contributors == []


def choices(site: FakeSite) -> list[tuple[Wanted, Source]]:
    found = []
    for uri, content in CONTENTS.items():
        what = wanted(content, uri)
        site.hold(uri, content, what.artifact_id)
        found.append((what, Source(site.address_of(uri), site.name)))
    return found


def test_the_lease_is_renewed_while_an_answer_comes(alpha: FakeSite) -> None:
    beats: list[None] = []
    ahead = Prefetched(LIMITS, lambda: beats.append(None))
    asked = choices(alpha)
    assert ahead.fetch(asked) == ([], [asked[0][1]])
    assert beats
    came = [ahead.take(what) for what, _ in asked]
    assert [one.content for one in came if one is not None] == list(CONTENTS.values())
    assert ahead.take(asked[0][0]) is None


def test_the_connection_is_used_again(alpha: FakeSite) -> None:
    for _ in range(3):
        Prefetched(LIMITS, lambda: None).fetch(choices(alpha))
    assert (len(alpha.batches), alpha.connections) == (3, 1)


def test_a_worker_that_loses_its_lease_while_an_answer_comes_stores_nothing(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sync_operations, "_RENEW_SECONDS", 0.0)
    publish(federation)

    def take_over() -> None:
        SyncAttempt.objects.update(lease_holder=uuid.uuid4())
        connection.close()

    federation.alpha.batch_fault = changed(before=take_over)
    assert federation.tick() == [BatchResult(failed=1)]
    assert not StorageLocation.objects.exists()
    assert list(federation.store.iterate()) == []


class Stopped(BaseException):
    """As a worker that is told to stop raises it in the middle of anything."""


@pytest.mark.parametrize("after", [0, 2])
@pytest.mark.parametrize("together", [1, 25])
def test_a_worker_that_is_told_to_stop_gives_back_what_it_has_not_stored(
    federation: Federation, monkeypatch: pytest.MonkeyPatch, together: int, after: int
) -> None:
    publish(federation)
    monkeypatch.setattr(sync_operations, "_TOGETHER", together)
    write, count = federation.store.write, 0

    def stop(*arguments: Any) -> Any:
        nonlocal count
        count += 1
        if count > after:
            raise Stopped
        return write(*arguments)

    monkeypatch.setattr(federation.store, "write", stop)
    scan.note_missing()
    (lease,) = attempts.claim(batches=1)
    with pytest.raises(Stopped):
        sync_batch(lease=lease, store=federation.store)
    stored = after if together == 1 else 0
    assert StorageLocation.objects.count() == len(list(federation.store.iterate())) == stored
    assert set(SyncAttempt.objects.values_list("attempts", "lease_holder", "last_reason")) == {(0, None, "")}
    assert SyncAttempt.objects.count() == len(CONTENTS) - stored


@pytest.mark.parametrize(
    ("room", "groups"),
    [(10**9, [4]), (SIZE, [4]), (SIZE - 1, [3, 1]), (SIZE // 2, [2, 2]), (SIZE // 2 - 1, [1, 1, 1, 1])],
)
def test_small_files_are_stored_together_as_far_as_there_is_room_for_all_above_the_mark(
    federation: Federation, monkeypatch: pytest.MonkeyPatch, settings: Settings, room: int, groups: list[int]
) -> None:
    settings.INVENTORY_SYNC_FREE_BYTES = 1000
    publish(federation)
    seen: list[int] = []
    write_all = federation.store.write_all

    def note(writes: Sequence[Write]) -> list[StoredObject | CallerError]:
        seen.append(len(writes))
        return write_all(writes)

    monkeypatch.setattr(federation.store, "write_all", note)
    monkeypatch.setattr(federation.store, "free_space", lambda: FreeSpace(total=10**12, free=1000 + room))
    assert federation.tick() == ALL
    assert seen == groups
    assert_all_are_right(federation)


def test_an_artifact_deleted_while_the_answer_comes_leaves_obsolete_bytes(federation: Federation) -> None:
    publish(federation)

    def delete() -> None:
        operations.delete_artifact(uri=ArtifactUri.parse("cadc:2"))
        connection.close()

    federation.alpha.batch_fault = changed(before=delete)
    assert federation.tick() == [BatchResult(stored=3, stored_bytes=SIZE - 300)]
    assert ObsoleteStorageLocation.objects.count() == 1
    assert not SyncAttempt.objects.exists()


def test_lost_copies_are_repaired_in_one_answer_whatever_the_policy_says(federation: Federation) -> None:
    publish(federation)
    federation.tick()
    set_policy(namespace=Namespace.parse("cadc:"), wanted=False)
    for location in list(StorageLocation.objects.all())[:3]:
        operations.detach_location(artifact_id=location.artifact_id)
    (result,) = federation.tick()
    assert result.stored == 3
    assert [len(batch) for batch in federation.alpha.batches] == [4, 3]
    assert_all_are_right(federation)


@pytest.mark.parametrize(
    ("url", "has_door"),
    [
        ("http://site/files/1.k.c.s/cadc:a", True),
        ("https://site:8443/base/of/it/files/1.k.c.s/cadc:files/x", True),
        ("http://site/files/cadc:a", False),
        ("http://site/files/1.k.c.s/cadc:a?x=1", False),
        ("http://site/minoc/files/", False),
        ("ftp://site/files/1.k.c.s/cadc:a", False),
        ("http://site/other/1.k.c.s/cadc:a", False),
    ],
)
def test_only_signed_urls_of_files_have_the_door(url: str, has_door: bool) -> None:
    ahead = Prefetched(LIMITS, lambda: None)
    assert ahead.may_ask(wanted(b"x"), Source(url, "site")) is has_door


def test_a_real_site_gives_what_its_signed_urls_name(live: SiteProcess) -> None:
    key = SigningKey.generate(uuid.uuid4().hex[:8])
    remote = RemoteInventory.objects.create(name="global", role="global", url="http://global.example")
    replace_trusted_keys(remote=remote, keys={key.key_id: key.public_bytes}, now=datetime.now(UTC))
    # For any site: the server remembers its id from the first test of this process.
    claims = TransferClaims(Methods.READ, datetime.now(UTC) + timedelta(minutes=5), None, "beta")
    asked = []
    for uri, content in {**CONTENTS, "cadc:dir//é+,=@!~*'()": b"odd"}.items():
        answer = live.request(
            "PUT", f"/files/{uri}".replace("é", "%C3%A9"), content, {"Authorization": f"Bearer {TOKEN}"}
        )
        assert answer.status == 201
        name = ArtifactUri.parse(uri)
        what = replace(wanted(content, name.value), artifact_id=uuid.UUID(answer.headers["x-artifact-id"]))
        quoted = name.value.replace("%", "%25")
        asked.append((what, Source(f"{live.url}/files/{key.sign(name, claims)}/{quoted}", "alpha")))
    other = replace(asked[0][0], artifact_id=uuid.uuid4(), uri="cadc:gone")
    forged = Source(asked[0][1].url.replace("cadc:0", "cadc:1"), "alpha")
    ahead = Prefetched(LIMITS, lambda: None)
    failures, contributors = ahead.fetch([*asked, (other, forged)])
    assert (failures, [source.site for source in contributors]) == ([], ["alpha"])
    came = [ahead.take(what) for what, _ in asked]
    assert [one.content for one in came if one is not None] == [*CONTENTS.values(), b"odd"]
    assert ahead.take(other) is None
