"""News travel at once, are never lost, and nothing polls hot: listener, tasks and commands against real peers."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import psycopg
import pytest
import redis
from django.core.management import CommandError, call_command
from django.db import connection
from pytest_django.fixtures import Settings

from datamodel import sealing
from datamodel.alarms.models import Alarm
from datamodel.models import (
    Artifact,
    HarvestConflict,
    HarvestState,
    InventoryIdentity,
    RemoteInventory,
    TrustedKey,
)
from datamodel.pairing import operations as pairing
from datamodel.preauth import SigningKey
from datamodel.statements import signed_statement
from harvest import client, exchange, listening, operations, queries, tasks
from harvest.client import Remote
from harvest.exchange import Harvested, Heard
from harvest.listening import Listeners, Pause, RemoteListener
from tests import peers
from tests.factories import artifact_row
from tests.fakes.feed import TOKEN, FakeInventory, artifact_fields, serve
from tests.harvest.selections import Wishes
from tests.servers import test_server_location as server_location

PROJECT = Path(__file__).parents[2]


def wait_for(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.01)  # between two looks at the condition


class Worker:
    """What a Celery worker is to the listener: messages come, remotes are harvested one after the other."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.is_lossy = False
        self._queue: list[str] = []
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def send(self, name: str) -> bool:
        self.messages.append(name)
        if not self.is_lossy:
            self._queue.append(name)
        return True

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(0.005):
            while self._queue:
                exchange.harvest(self._queue.pop(0))
        connection.close()


@pytest.fixture
def worker() -> Iterator[Worker]:
    started = Worker()
    yield started
    started.stop()


@pytest.fixture
def listeners(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> Iterator[Listeners]:
    # A listener of a test must end with the test.
    monkeypatch.setattr(listening, "WAIT_SECONDS", 1)
    started = Listeners(tasks.harvest_heard, worker.send)
    yield started
    running = [listener for _, listener in started._running.values()]
    started.stop()
    for listener in running:
        listener._thread.join()


def test_a_change_at_a_site_is_known_in_well_under_a_second(
    from_site: RemoteInventory, peer: FakeInventory, listeners: Listeners
) -> None:
    exchange.harvest("peer")
    listeners.refresh()
    wait_for(lambda: bool(peer.asked("news")[1:]))
    begun = time.monotonic()
    peer.add_artifact(artifact_row())
    wait_for(Artifact.objects.exists)
    # The target is one second on an idle machine; tests run on busy ones.
    assert time.monotonic() - begun < 5


def test_a_settled_remote_is_not_polled_hot(
    from_site: RemoteInventory, peer: FakeInventory, listeners: Listeners, worker: Worker
) -> None:
    exchange.harvest("peer")
    peer.requests.clear()
    listeners.refresh()
    time.sleep(2.5)  # the time over which requests are counted
    assert 1 <= len(peer.requests) <= 4
    assert worker.messages == []


def test_a_lost_message_is_sent_again_without_haste(
    from_site: RemoteInventory, peer: FakeInventory, listeners: Listeners, worker: Worker
) -> None:
    worker.is_lossy = True
    peer.add_artifact(artifact_row())
    listeners.refresh()
    wait_for(lambda: bool(worker.messages))
    time.sleep(1.5)  # the time over which messages are counted
    assert len(worker.messages) <= 3
    worker.is_lossy = False
    wait_for(Artifact.objects.exists)


def paths(peer: FakeInventory) -> list[str]:
    return [request.partition("?")[0].rpartition("/")[2] for request in peer.requests]


@pytest.mark.usefixtures("from_site")
def test_news_are_harvested_where_they_are_heard_by_one_request_more(
    peer: FakeInventory, listeners: Listeners, worker: Worker
) -> None:
    peer.tells_deletions = True
    exchange.harvest("peer")
    RemoteInventory.objects.update(last_contact_at=None)
    listeners.refresh()
    wait_for(lambda: bool(peer.asked("news")[1:]))
    peer.requests.clear()
    peer.add_artifact(artifact_row())
    wait_for(lambda: RemoteInventory.objects.filter(last_contact_at__isnull=False, lease_holder=None).exists())
    assert Artifact.objects.count() == 1
    assert [path for path in paths(peer) if path != "news"] == ["artifacts"]
    assert {query["wait"][0] for query in peer.asked("news")} <= {str(listening.WAIT_SECONDS)}
    assert set(HarvestState.objects.values_list("cur_txid", flat=True)) == {peer.txid}
    assert worker.messages == []


@pytest.mark.usefixtures("from_site")
def test_what_is_more_than_a_page_is_left_to_a_worker(
    peer: FakeInventory, listeners: Listeners, worker: Worker, settings: Settings
) -> None:
    exchange.harvest("peer")
    settings.INVENTORY_HARVEST_BATCH = 2
    for number in range(5):
        peer.add_artifact(artifact_row(f"cadc:TEST/{number}"))
    listeners.refresh()
    wait_for(lambda: Artifact.objects.count() == 5)
    assert worker.messages[:1] == ["peer"]


@pytest.mark.usefixtures("from_site")
def test_a_remote_that_says_for_ever_that_it_has_news_is_not_asked_hot(
    peer: FakeInventory, listeners: Listeners, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchange.harvest("peer")
    honest = peer.news
    lie = {"news": True, "streams": ["artifacts"]}
    monkeypatch.setattr(peer, "news", lambda query: honest({**query, "wait": ["0"]}) | lie)
    worker.is_lossy = True
    peer.requests.clear()
    listeners.refresh()
    time.sleep(2.5)  # the time over which requests are counted
    assert worker.messages, "somebody shall say what is wrong with it"
    assert len(peer.asked("artifacts")) == 1
    assert len(peer.asked("news")) <= 4


@pytest.mark.usefixtures("from_site")
def test_what_fails_in_the_listener_is_recorded_and_made_good(
    peer: FakeInventory, listeners: Listeners, worker: Worker
) -> None:
    exchange.harvest("peer")
    peer.status = {"artifacts": 500}
    worker.is_lossy = True
    listeners.refresh()
    peer.add_artifact(artifact_row())
    wait_for(lambda: RemoteInventory.objects.exclude(last_error="").filter(lease_holder=None).exists())
    peer.status, worker.is_lossy = {}, False
    wait_for(lambda: RemoteInventory.objects.filter(last_error="").exists())
    assert Artifact.objects.exists()


@pytest.mark.usefixtures("from_site")
def test_a_turn_that_was_begun_gives_its_lease_back_before_the_listener_ends(
    peer: FakeInventory, listeners: Listeners
) -> None:
    exchange.harvest("peer")
    is_asked, may_answer = threading.Event(), threading.Event()

    def hold(name: str) -> None:
        if name == "artifacts":
            is_asked.set()
            may_answer.wait(20)

    peer.before = hold
    listeners.refresh()
    peer.add_artifact(artifact_row())
    assert is_asked.wait(20)
    begun = time.monotonic()
    listeners.stop(seconds=0.2)
    assert time.monotonic() - begun < 5, "a remote that hangs is not waited for"
    assert RemoteInventory.objects.filter(lease_holder__isnull=False).exists()
    may_answer.set()
    listeners.stop(seconds=20)
    assert (Artifact.objects.count(), RemoteInventory.objects.get().lease_holder) == (1, None)


@pytest.mark.parametrize(
    ("rows", "turn", "rest"), [(1, 0.005, 0.015), (1, 0.1, 0.0), (5, 0.03, 0.07), (100, 0.05, 0.15), (100, 1.0, 0.0)]
)
@pytest.mark.usefixtures("from_site")
def test_where_many_rows_come_the_next_ones_gather_from_turn_to_turn_and_where_turns_are_slow_nobody_waits_longer(
    peer: FakeInventory, monkeypatch: pytest.MonkeyPatch, rows: int, turn: float, rest: float
) -> None:
    exchange.harvest("peer")
    now, rests = [0.0], list[float]()

    class Watched(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            rests.append(timeout or 0.0)
            return False

    def harvest(name: str, heard: Heard) -> Harvested:
        now[0] += turn
        return exchange.harvest_heard(name, heard)

    listener = RemoteListener(RemoteInventory.objects.get(), harvest, lambda _: True)
    listener._stopped = Watched()
    for _ in range(rows):
        peer.add_artifact(artifact_row(f"cadc:TEST/{uuid.uuid4()}"))
    monkeypatch.setattr(listening, "time", SimpleNamespace(monotonic=lambda: now[0]))
    listener._listen_once()
    assert Artifact.objects.count() == rows
    assert rests == pytest.approx([rest])


def heard_of(peer: FakeInventory) -> Heard:
    """What a long-poll says now."""
    remote = RemoteInventory.objects.get()
    progress = queries.progress(remote.id)
    found = client.fetch_news(Remote.of(remote), epoch=progress.epoch, after=progress.after)
    peer.requests.clear()
    return Heard(progress, found)


@pytest.mark.usefixtures("from_site")
def test_only_what_was_heard_of_cursors_where_they_still_are_is_harvested(peer: FakeInventory) -> None:
    exchange.harvest("peer")
    peer.add_artifact(artifact_row())
    heard = heard_of(peer)
    stranger = replace(heard, news=replace(heard.news, inventory_id=uuid.uuid4()))
    assert exchange.harvest_heard("peer", stranger).is_interrupted
    restored = replace(heard, news=replace(heard.news, epoch="f" * 16))
    assert exchange.harvest_heard("peer", restored).is_interrupted
    assert (peer.requests, Artifact.objects.count()) == ([], 0)
    lease = operations.claim_remote("peer")
    assert lease is not None
    assert exchange.harvest_heard("peer", heard).is_busy
    operations.release_remote(lease)
    assert exchange.harvest_heard("peer", heard).is_complete
    peer.requests.clear()
    assert exchange.harvest_heard("peer", heard).is_busy, "somebody was faster: there may be other news now"
    assert peer.requests == []


@pytest.mark.usefixtures("from_site")
@pytest.mark.parametrize("tells_deletions", [True, False])
def test_a_replacement_between_the_news_and_the_page_is_no_collision(
    peer: FakeInventory, *, tells_deletions: bool
) -> None:
    peer.tells_deletions = tells_deletions
    old, new = artifact_row("cadc:TEST/a", b"old"), artifact_row("cadc:TEST/a", b"new")
    peer.add_artifact(old)
    exchange.harvest("peer")
    peer.add_artifact(artifact_row("cadc:TEST/b"))
    heard = heard_of(peer)
    peer.delete(old)
    peer.add("artifacts", artifact_fields(new), same_transaction=True)
    assert exchange.harvest_heard("peer", heard).is_complete
    assert paths(peer) == ["artifacts", "deleted-artifacts"]
    assert Artifact.objects.get(uri="cadc:TEST/a").id == new.id
    assert not HarvestConflict.objects.exists()


@pytest.mark.usefixtures("from_site")
def test_a_cursor_that_is_lost_is_a_workers_affair(peer: FakeInventory) -> None:
    exchange.harvest("peer")
    peer.add_artifact(artifact_row())
    heard = heard_of(peer)
    peer.epoch = "fedcba9876543210"
    assert exchange.harvest_heard("peer", heard).is_interrupted
    remote = RemoteInventory.objects.get()
    assert (remote.lease_holder, remote.last_error) == (None, "")
    assert exchange.harvest("peer").is_complete
    assert Artifact.objects.exists()


def test_news_that_come_while_a_harvest_runs_are_not_lost(
    from_site: RemoteInventory, peer: FakeInventory, listeners: Listeners, worker: Worker
) -> None:
    """The second artifact comes when the pass is beyond its stream: the same harvest looks again before it ends."""
    late = artifact_row("cadc:TEST/late")
    added: list[int] = []

    def add_late(stream: str) -> None:
        if stream == "deleted-artifacts" and not added:
            added.append(peer.add_artifact(late))

    peer.before = add_late
    peer.add_artifact(artifact_row())
    listeners.refresh()
    wait_for(lambda: Artifact.objects.count() == 2)
    assert added


def test_a_message_that_finds_the_lease_taken_is_made_good(
    from_site: RemoteInventory, peer: FakeInventory, listeners: Listeners, worker: Worker
) -> None:
    lease = operations.claim_remote("peer")
    assert lease is not None
    peer.add_artifact(artifact_row())
    listeners.refresh()
    wait_for(lambda: bool(worker.messages))
    operations.release_remote(lease)
    wait_for(Artifact.objects.exists)


def test_a_dead_remote_delays_nobody_and_is_heard_when_it_is_back(
    from_site: RemoteInventory, peer: FakeInventory, listeners: Listeners
) -> None:
    peer.status = {"news": 503}
    with serve() as good:
        good.add_site(resource_id="ivo://fake/good")
        RemoteInventory.objects.create(name="good", role="site", url=good.url, token=sealing.seal(TOKEN.encode()))
        listeners.refresh()
        wait_for(lambda: bool(peer.asked("news")))
        good.add_artifact(artifact_row("cadc:TEST/good"))
        wait_for(lambda: Artifact.objects.filter(uri="cadc:TEST/good").exists())
        assert len(peer.asked("news")) <= 5
        peer.status = {}
        peer.add_artifact(artifact_row("cadc:TEST/back"))
        wait_for(lambda: Artifact.objects.filter(uri="cadc:TEST/back").exists())


def test_listeners_follow_the_table_of_remotes(
    from_site: RemoteInventory, peer: FakeInventory, listeners: Listeners
) -> None:
    listeners.refresh()
    assert listeners.names == {"peer"}
    first = listeners._running["peer"][1]
    listeners.refresh()
    assert listeners._running["peer"][1] is first
    RemoteInventory.objects.update(url=f"{peer.url}/")
    listeners.refresh()
    assert listeners._running["peer"][1] is not first
    first._thread.join(10)
    assert not first.is_alive
    RemoteInventory.objects.update(enabled=False)
    listeners.refresh()
    assert listeners.names == set()


def test_pauses_grow_to_half_a_minute_and_start_again() -> None:
    pause = Pause()
    pauses = [pause.next() for _ in range(10)]
    assert all(earlier < later for earlier, later in pairwise(pauses[:5]))
    assert 20 <= pauses[-1] <= 30
    pause.reset()
    assert pause.next() <= 1


# --- tasks


@pytest.fixture
def queue(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[str]]]:
    """Names and arguments of the messages in the broker."""
    client = redis.Redis(unix_socket_path=str(server_location().redis_socket), db=0)
    client.flushdb()
    tasks._sender.cache_clear()
    name = settings.CELERY_SETTINGS["broker_transport_options"]["global_keyprefix"] + "decide"

    def messages() -> list[str]:
        found = [json.loads(message)["headers"] for message in client.lrange(name, 0, -1)]
        return [f"{headers['task']}{headers['argsrepr']}" for headers in reversed(found)]

    yield messages
    client.flushdb()
    client.close()


def test_each_due_remote_gets_a_task_of_its_own(
    from_site: RemoteInventory, peer: FakeInventory, queue: Callable[[], list[str]]
) -> None:
    now = datetime.now(UTC)
    for name, failing in (("failing", timedelta(hours=1)), ("failed-once", timedelta(0))):
        RemoteInventory.objects.create(
            name=name, role="site", url=peer.url, last_error="x", last_error_at=now, last_contact_at=now - failing
        )
    RemoteInventory.objects.create(name="disabled", role="site", url=peer.url, enabled=False)
    RemoteInventory.objects.create(name="global", role="global", url=peer.url)
    tasks.harvest_all()
    assert queue() == [f"harvest.tasks.harvest_remote('{name}',)" for name in ("failed-once", "peer")]


def test_the_floor_looks_less_often_at_a_remote_that_fails_for_long() -> None:
    now = datetime.now(UTC)
    remote = RemoteInventory(last_error="x", last_error_at=now, last_contact_at=now - timedelta(minutes=4))
    assert not queries.is_due(remote, now + timedelta(seconds=50))
    assert queries.is_due(remote, now + timedelta(seconds=70))
    remote.last_contact_at = now - timedelta(days=4)
    assert not queries.is_due(remote, now + timedelta(minutes=4))
    assert queries.is_due(remote, now + timedelta(minutes=6))


def test_rows_that_come_to_a_site_wake_its_file_sync(
    from_global: RemoteInventory,
    policy: Wishes,
    peer: FakeInventory,
    queue: Callable[[], list[str]],
    settings: Settings,
) -> None:
    settings.HARVEST_NUDGE = "some.task"
    tasks.harvest_remote("peer")
    assert queue() == []
    peer.add_artifact(artifact_row())
    tasks.harvest_remote("peer")
    assert queue() == ["some.task()"]


def test_rows_that_are_heard_of_wake_file_sync_too(
    from_global: RemoteInventory,
    policy: Wishes,
    peer: FakeInventory,
    queue: Callable[[], list[str]],
    settings: Settings,
) -> None:
    settings.HARVEST_NUDGE = "some.task"
    tasks.harvest_remote("peer")
    peer.add_tombstone(artifact_row("cadc:TEST/other"))
    assert tasks.harvest_heard("peer", heard_of(peer)).is_complete
    peer.add_artifact(artifact_row())
    assert tasks.harvest_heard("peer", heard_of(peer)).is_complete
    assert queue()[-1:] == ["some.task()"]
    assert Artifact.objects.exists()


def test_an_interrupted_turn_asks_for_another(
    from_site: RemoteInventory, peer: FakeInventory, queue: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "TURN_SECONDS", 0.0)
    tasks.harvest_remote("peer")
    assert queue() == ["harvest.tasks.harvest_remote('peer',)"]


def test_a_failing_remote_fails_no_task(
    from_site: RemoteInventory, peer: FakeInventory, queue: Callable[[], list[str]]
) -> None:
    peer.status = {"news": 500}
    tasks.harvest_remote("peer")
    assert RemoteInventory.objects.get().last_error.startswith("remote_unavailable")
    assert queue() == []


def test_a_broker_that_is_gone_fails_nothing(from_site: RemoteInventory, settings: Settings) -> None:
    settings.CELERY_SETTINGS = {**dict(settings.CELERY_SETTINGS or {}), "broker_url": "redis://127.0.0.1:1/0"}
    tasks._sender.cache_clear()
    try:
        assert tasks.request_harvest("peer") is False
    finally:
        tasks._sender.cache_clear()


def test_sites_trust_what_each_global_publishes_now(from_global: RemoteInventory, peer: FakeInventory) -> None:
    RemoteInventory.objects.create(name="dead", role="global", url="http://127.0.0.1:1")
    peer.keys = {"one": b"1" * 32, "two": b"2" * 32}
    tasks.refresh_trusted_keys()
    peer.keys = {"two": b"2" * 32, "three": b"3" * 32}
    tasks.refresh_trusted_keys()
    assert set(TrustedKey.objects.values_list("name", flat=True)) == {"two", "three"}
    peer.status = {"pubkey": 500}
    tasks.refresh_trusted_keys()
    assert TrustedKey.objects.count() == 2


def test_a_global_that_is_met_for_the_first_time_is_trusted_at_once(
    from_global: RemoteInventory, policy: Wishes, peer: FakeInventory
) -> None:
    peer.keys = {"one": b"1" * 32}
    tasks.harvest_remote("peer")
    assert set(TrustedKey.objects.values_list("name", flat=True)) == {"one"}
    peer.keys = {"two": b"2" * 32}
    tasks.harvest_remote("peer")
    assert set(TrustedKey.objects.values_list("name", flat=True)) == {"one"}, "what is known is refreshed by beat"


def signed_keys(
    peer: FakeInventory, remote: RemoteInventory, key: SigningKey, **changes: object
) -> Callable[[bytes], str]:
    """How a paired peer signs what it publishes."""

    def sign(document: bytes) -> str:
        now = int(time.time())
        digest = f"sha-256:{hashlib.sha256(document).hexdigest()}"
        claims = {"iss": str(remote.inventory_id), "aud": digest, "iat": now, "exp": now + 300} | changes
        return signed_statement(key, claims, kind="storage-inventory-keys+jwt", algorithm="Ed25519")

    return sign


@pytest.mark.parametrize("role", ["global", "site"])
def test_new_keys_of_a_paired_inventory_are_believed_only_from_one_that_is_trusted(
    inventory: InventoryIdentity, peer: FakeInventory, role: str
) -> None:
    first = peers.paired("omega", role=role, url=peer.url)
    second, third = SigningKey.generate("2"), SigningKey.generate("3")

    def refreshed(signs: Callable[[bytes], str] | None, *published: SigningKey) -> set[str]:
        peer.keys, peer.signs = {key.key_id: key.public_bytes for key in published}, signs
        tasks.refresh_trusted_keys()
        return set(TrustedKey.objects.values_list("name", flat=True))

    known = {first.key.key_id}
    assert refreshed(None, second) == known, "unsigned"
    assert refreshed(signed_keys(peer, first.remote, second), second) == known, "signed by the new one alone"
    assert refreshed(signed_keys(peer, first.remote, first.key, iss=str(uuid.uuid4())), second) == known
    assert refreshed(signed_keys(peer, first.remote, first.key, aud="sha-256:0"), second) == known
    assert refreshed(signed_keys(peer, first.remote, first.key, exp=1), second) == known
    assert refreshed(signed_keys(peer, first.remote, first.key), first.key, second) == {*known, "2"}
    both = [signed_keys(peer, first.remote, key) for key in (third, second)]
    assert refreshed(lambda body: ", ".join(sign(body) for sign in both), second, third) == {"2", "3"}
    pairing.revoke(name="omega", reason="test")
    assert refreshed(signed_keys(peer, first.remote, third), third) == set()


def stale_alarms(*, is_open: bool) -> list[tuple[str, str]]:
    rows = Alarm.objects.filter(kind="stale_keys", cleared_at__isnull=is_open).values_list("subject", "text")
    return sorted(rows)


def test_keys_that_cannot_be_refreshed_for_long_are_an_alarm_until_they_can(
    inventory: InventoryIdentity, peer: FakeInventory
) -> None:
    paired = peers.paired("omega", role="site", url=peer.url)
    sound = signed_keys(peer, paired.remote, paired.key)
    peer.keys, peer.signs = {paired.key.key_id: paired.key.public_bytes}, sound
    tasks.refresh_trusted_keys()
    peer.signs = None
    tasks.refresh_trusted_keys()
    assert not Alarm.objects.exists(), "it has failed for a moment"
    TrustedKey.objects.update(fetched_at=datetime.now(UTC) - timedelta(minutes=61))
    for _ in range(2):
        tasks.refresh_trusted_keys()
    ((subject, text),) = stale_alarms(is_open=True)
    assert (subject, "not signed" in text) == ("omega", True)
    assert Alarm.objects.get().count == 2
    peer.signs = sound
    tasks.refresh_trusted_keys()
    assert (stale_alarms(is_open=True), len(stale_alarms(is_open=False))) == ([], 1)


def test_a_short_overlap_leaves_less_time(
    from_global: RemoteInventory, peer: FakeInventory, settings: Settings
) -> None:
    settings.INVENTORY_KEY_OVERLAP = timedelta(minutes=10)
    peer.keys = {"one": b"1" * 32}
    tasks.refresh_trusted_keys()
    peer.status = {"pubkey": 500}
    for minutes, count in ((4, 0), (6, 1)):
        TrustedKey.objects.update(fetched_at=datetime.now(UTC) - timedelta(minutes=minutes))
        tasks.refresh_trusted_keys()
        assert len(stale_alarms(is_open=True)) == count


def test_a_peer_that_answers_but_never_with_keys_is_an_alarm_and_one_that_is_not_trusted_any_more_is_none(
    from_global: RemoteInventory, peer: FakeInventory
) -> None:
    peer.status = {"pubkey": 500}
    tasks.refresh_trusted_keys()
    assert not Alarm.objects.exists(), "nobody has met it yet"
    RemoteInventory.objects.update(last_contact_at=datetime.now(UTC))
    tasks.refresh_trusted_keys()
    assert [subject for subject, _ in stale_alarms(is_open=True)] == ["peer"]
    pairing.revoke(name="peer", reason="test")
    tasks.refresh_trusted_keys()
    assert stale_alarms(is_open=True) == []


def test_keys_that_arrive_while_their_inventory_is_revoked_are_not_kept(
    inventory: InventoryIdentity, peer: FakeInventory
) -> None:
    paired = peers.paired("omega", role="global", url=peer.url)
    peer.keys = {paired.key.key_id: paired.key.public_bytes}
    peer.signs = signed_keys(peer, paired.remote, paired.key)

    def revoke(name: str) -> None:
        pairing.revoke(name="omega", reason="test")
        connection.close()

    peer.before = revoke
    tasks.refresh_trusted_keys()
    assert not TrustedKey.objects.exists()


# --- commands


def test_harvest_once_prints_what_came(from_site: RemoteInventory, peer: FakeInventory) -> None:
    peer.add_artifact(artifact_row())
    out = io.StringIO()
    call_command("harvest_once", stdout=out)
    assert out.getvalue().splitlines()[1].split() == ["peer", "2", "3", "0", "complete"]
    RemoteInventory.objects.create(name="dead", role="site", url="http://127.0.0.1:1")
    out = io.StringIO()
    with pytest.raises(CommandError, match="not every remote"):
        call_command("harvest_once", stdout=out)
    assert "cannot be reached" in out.getvalue()
    call_command("harvest_once", "--remote", "peer", stdout=out)
    with pytest.raises(CommandError, match="there are: dead, peer"):
        call_command("harvest_once", "--remote", "nobody", stdout=out)


def test_listen_ends_within_a_second_of_sigterm_and_sends_tasks_before(
    from_site: RemoteInventory, peer: FakeInventory, queue: Callable[[], list[str]]
) -> None:
    peer.add_artifact(artifact_row())
    parameters = connection.get_connection_params()
    url = server_location().database_url.replace("/inventory?", f"/{parameters['dbname']}?")
    environment = {
        **os.environ,
        "DATABASE_URL": url,
        "INVENTORY_DIRECT_DATABASE_URL": url,
        "INVENTORY_ROLE": "global",
        "INVENTORY_NAME": "site",
        "DJANGO_SETTINGS_MODULE": "global_inventory.settings",
        "PYTHONPATH": str(PROJECT),
    }
    with subprocess.Popen(
        [sys.executable, "-m", "django", "listen"], env=environment, stderr=subprocess.PIPE
    ) as process:
        try:
            wait_for(lambda: bool(queue()), 60)
            begun = time.monotonic()
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
            assert time.monotonic() - begun < 5, "a second on an idle machine"
        finally:
            process.kill()
    assert set(queue()) == {"harvest.tasks.harvest_remote('peer',)"}


def test_the_lease_of_a_dead_harvest_is_free_after_a_minute(from_site: RemoteInventory) -> None:
    assert operations.claim_remote("peer") is not None
    held = RemoteInventory.objects.get()
    assert held.lease_until is not None
    assert timedelta(seconds=50) < held.lease_until - datetime.now(UTC) <= timedelta(seconds=61)
    parameters = {
        key: value
        for key, value in connection.get_connection_params().items()
        if key in {"dbname", "user", "host", "port"}
    }
    with psycopg.connect(**parameters) as other:
        other.execute("UPDATE remote_inventory SET lease_until = now() - interval '1 ms'")
    assert operations.claim_remote("peer") is not None
    assert not HarvestState.objects.exists()
