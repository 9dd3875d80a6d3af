"""A site learns of its globals' snapshots, says that it keeps them, and lets go what they release."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from uuid import UUID

import pytest
from django.db import connections, transaction
from django.test import Client
from django.utils import timezone

from datamodel import operations as operations_of_model, sealing
from datamodel.errors import RemoteProtocolError, RemoteUnavailableError, StateConflictError
from datamodel.models import RemoteInventory, StorageSite
from datamodel.positions import Position
from datamodel.rows import database_now
from datamodel.snapshots import operations, queries
from datamodel.snapshots.models import PinSource, Snapshot
from datamodel.uris import ArtifactUri, Namespace
from harvest.feed import read_head
from site_service.snapshots import pins
from site_service.snapshots.tasks import exchange_pins
from tests.datamodel.snapshots.moments import tick
from tests.factories import new_content
from tests.fakes.pins import FakeGlobal, fake_global

pytestmark = pytest.mark.usefixtures("site")


@pytest.fixture
def peer() -> Iterator[FakeGlobal]:
    with fake_global() as found:
        yield found


@pytest.fixture
def remote(site: StorageSite, peer: FakeGlobal) -> RemoteInventory:
    del site
    return RemoteInventory.objects.create(name="global", role="global", url=peer.url, token=sealing.seal(b"secret"))


def held(peer: FakeGlobal) -> list[str]:
    return [word for said in peer.said for word in said["held"].split(",") if word]


def test_a_snapshot_of_a_global_is_kept_here_and_acknowledged_with_a_position(
    peer: FakeGlobal, remote: RemoteInventory
) -> None:
    operations_of_model.record_stored(uri=ArtifactUri.parse("cadc:TEST/1"), content=new_content())
    pin = peer.add(tick())
    pins.exchange_pins(remote=remote)
    found = queries.find("global:one")
    assert (str(found.id), found.namespace, found.state) == (pin["id"], "cadc:TEST/", "pinning")
    assert peer.tokens == ["Bearer secret"]
    assert held(peer) == [pin["id"]]
    position = Position.parse(peer.said[0]["position"])
    head = read_head()
    assert (position.inventory_id, position.epoch) == (head.identity.inventory_id, head.identity.epoch)
    assert position.txid == head.settled, "further a cursor will not go while nothing happens here"
    source = PinSource.objects.get()
    assert abs(source.heard_until - peer.until) < timedelta(milliseconds=1)


def test_every_page_is_read_before_the_global_counts_as_heard(peer: FakeGlobal, remote: RemoteInventory) -> None:
    peer.page = 2
    for number in range(5):
        peer.add(tick(), name=f"s{number}")
    pins.exchange_pins(remote=remote)
    assert Snapshot.objects.count() == 5
    assert len(peer.tokens) == 3


def test_a_moment_that_is_not_over_here_is_acknowledged_later(peer: FakeGlobal, remote: RemoteInventory) -> None:
    """Until then this site's clock could still date something before it."""
    peer.add(database_now() + timedelta(milliseconds=400))
    pins.exchange_pins(remote=remote)
    assert queries.find("global:one").state == "pinning"
    assert held(peer) == []
    while not held(peer):
        pins.exchange_pins(remote=remote)
    assert database_now() > queries.find("global:one").moment


def test_a_writer_from_before_the_moment_delays_the_acknowledgement(peer: FakeGlobal, remote: RemoteInventory) -> None:
    begun, may_end = threading.Event(), threading.Event()

    def write() -> None:
        with transaction.atomic():
            database_now()
            begun.set()
            assert may_end.wait(30)
        connections.close_all()

    writer = threading.Thread(target=write)
    writer.start()
    assert begun.wait(30)
    peer.add(tick())
    pins.exchange_pins(remote=remote)
    assert held(peer) == []
    may_end.set()
    writer.join()
    pins.exchange_pins(remote=remote)
    assert len(held(peer)) == 1


def test_what_is_kept_there_is_kept_here_and_not_acknowledged_again(peer: FakeGlobal, remote: RemoteInventory) -> None:
    pin = peer.add(tick())
    pins.exchange_pins(remote=remote)
    pin |= {"state": "kept", "digest": "0" * 32, "artifacts": 3, "bytes": 30, "keptAt": timezone.now().isoformat()}
    peer.said.clear()
    peer.pass_time()
    pins.exchange_pins(remote=remote)
    found = queries.find("global:one")
    assert (found.state, found.artifacts, found.size) == ("kept", 3, 30)
    assert peer.said == []


def test_what_is_released_there_is_dropped_here_before_it_is_said(peer: FakeGlobal, remote: RemoteInventory) -> None:
    pin = peer.add(tick())
    pins.exchange_pins(remote=remote)
    pin["state"] = "released"
    peer.pass_time()
    peer.post_status = 503
    with pytest.raises(RemoteUnavailableError):
        pins.exchange_pins(remote=remote)
    assert not Snapshot.objects.exists()
    peer.post_status = 200
    pins.exchange_pins(remote=remote)
    assert [said["dropped"] for said in peer.said if said["dropped"]] == [pin["id"]]


def test_what_a_global_leaves_out_is_kept_until_an_operator_says_otherwise(
    peer: FakeGlobal, remote: RemoteInventory
) -> None:
    """It may have been restored from a backup that does not know it."""
    pin = peer.add(tick())
    pins.exchange_pins(remote=remote)
    with pytest.raises(StateConflictError, match="delete it there"):
        operations.release_snapshot(snapshot=queries.find("global:one"))
    peer.pins.clear()
    peer.pass_time()
    pins.exchange_pins(remote=remote)
    assert queries.find("global:one").is_orphan
    peer.pins.append(pin)
    pins.exchange_pins(remote=remote)
    assert not queries.find("global:one").is_orphan
    peer.pins.clear()
    pins.exchange_pins(remote=remote)
    operations.release_snapshot(snapshot=queries.find("global:one"))
    assert not Snapshot.objects.exists()


def test_an_older_answer_that_comes_later_changes_nothing(peer: FakeGlobal, remote: RemoteInventory) -> None:
    peer.add(tick())
    pins.exchange_pins(remote=remote)
    old = pins.Told(until=peer.until - timedelta(seconds=1))
    assert not pins.record_pins(remote=remote, told=old)
    assert not queries.find("global:one").is_orphan


BAD_ANSWERS = {
    "not JSON": b"<html>",
    "another form": b"[]",
    "no moment": b'{"pins": [], "next": null}',
    "no zone": b'{"until": "2026-01-01T00:00:00", "pins": [], "next": null}',
    "kept without digest": b'{"until": "2026-01-01T00:00:00Z", "next": null, "pins": [{"id": '
    b'"00000000-0000-0000-0000-000000000001", "name": "a", "namespace": "cadc:A/", "moment": "2026-01-01T00:00:00Z", '
    b'"state": "kept", "digest": null, "artifacts": 1, "bytes": 1, "keptAt": null}]}',
}


@pytest.mark.parametrize("case", BAD_ANSWERS)
def test_an_answer_of_another_form_is_no_answer(peer: FakeGlobal, remote: RemoteInventory, case: str) -> None:
    peer.body = BAD_ANSWERS[case]
    with pytest.raises(RemoteProtocolError):
        pins.exchange_pins(remote=remote)
    assert not PinSource.objects.exists()
    assert not Snapshot.objects.exists()


def test_a_global_cannot_take_over_a_snapshot_of_this_site(peer: FakeGlobal, remote: RemoteInventory) -> None:
    own = operations.create_snapshot(name="own", namespace=Namespace.parse("cadc:TEST/"), created_by="test")
    peer.add(tick())["id"] = str(own.id)
    with pytest.raises(RemoteProtocolError, match="somebody else"):
        pins.exchange_pins(remote=remote)
    own.refresh_from_db()
    assert own.source == ""


def test_one_global_that_does_not_answer_delays_no_other(peer: FakeGlobal, remote: RemoteInventory) -> None:
    RemoteInventory.objects.create(name="a-dead-one", role="global", url="http://127.0.0.1:9")
    peer.add(tick())
    exchange_pins()
    assert [str(found) for found in Snapshot.objects.all()] == ["global:one"]
    assert list(PinSource.objects.values_list("remote_id", flat=True)) == [remote.id]


def test_a_crash_before_the_acknowledgement_leaves_the_pin_and_the_next_turn_says_it(
    peer: FakeGlobal, remote: RemoteInventory, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Crash(BaseException):
        pass

    def die(*_: object) -> None:
        raise Crash

    pin = peer.add(tick())
    with monkeypatch.context() as patched:
        patched.setattr(pins, "_acknowledge", die)
        with pytest.raises(Crash):
            pins.exchange_pins(remote=remote)
    assert Snapshot.objects.get().id == UUID(str(pin["id"]))
    pins.exchange_pins(remote=remote)
    assert held(peer) == [pin["id"]]


def test_the_list_of_a_site_names_the_global(client: Client, peer: FakeGlobal, remote: RemoteInventory) -> None:
    peer.add(tick())
    pins.exchange_pins(remote=remote)
    item = client.get("/snapshots").json()["items"][0]
    assert (item["name"], item["source"], item["state"], item["waitingFor"]) == ("global:one", "global", "pinning", [])
    assert client.get("/snapshots/global:one").json() == item
    answer = client.delete("/snapshots/global:one")
    assert (answer.status_code, answer.json()["code"]) == (409, "state_conflict")


def test_since_when_a_global_has_not_been_heard_is_a_metric(
    client: Client, peer: FakeGlobal, remote: RemoteInventory
) -> None:
    assert 'inventory_pins_age_seconds{remote="global"} +Inf' in client.get("/metrics").content.decode()
    pins.exchange_pins(remote=remote)
    PinSource.objects.update(heard_at=database_now() - timedelta(hours=2))
    line = next(
        line for line in client.get("/metrics").content.decode().splitlines() if line.startswith("inventory_pins_age")
    )
    assert 7200 <= float(line.rpartition(" ")[2]) < 7300
    assert peer.tokens
