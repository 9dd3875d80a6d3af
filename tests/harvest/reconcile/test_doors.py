"""The doors: what is served, the command, the task, the gauges, the admin."""

from __future__ import annotations

import json
import uuid
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command
from django.test import Client
from django.utils import timezone
from pytest_django.fixtures import Settings

from datamodel import operations as model_operations
from datamodel.errors import DeletionBrakeError
from datamodel.models import DeletionBrake, InventoryIdentity, RemoteInventory, SiteLocation, StorageSite
from datamodel.rows import insert_tombstone
from datamodel.rules import ArtifactRow
from datamodel.uris import ArtifactUri
from harvest import exchange
from harvest.reconcile import compare, metrics, tasks, wire
from harvest.reconcile.models import ReconcileRun
from harvest.reconcile.rules import Mode
from harvest.reconcile.scope import Tree, digest_of, folded, total_of, tree_lines, whole_of
from tests.factories import WHEN, artifact_row, insert_artifact_row, new_content
from tests.fakes.feed import FakeInventory


class Caller:
    def __init__(self, token: str) -> None:
        self._client = Client(headers={"authorization": f"Bearer {token}"})

    def ask(
        self, what: str, query: dict[str, Any], *, post: bool = False, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        send = self._client.post if post else self._client.get
        response = send(f"/harvest/{what}", query, headers=headers)
        body = b"".join(response.streaming_content) if response.streaming else response.content  # type: ignore[attr-defined]
        return response.status_code, body


@pytest.fixture
def caller(harvest_token: str) -> Caller:
    return Caller(harvest_token)


def put(name: str) -> ArtifactRow:
    return model_operations.record_stored(uri=ArtifactUri.parse(name), content=new_content()).artifact


def own_id() -> str:
    return str(InventoryIdentity.objects.get().inventory_id)


@pytest.mark.usefixtures("site")
def test_the_scan_that_told_of_a_difference_is_kept_for_whoever_asks_where(caller: Caller) -> None:
    for number in range(20):
        put(f"cadc:TEST/{number}")
    asked = {"set": "stored", "site": own_id()}

    def tree(depth: int, **more: object) -> Tree:
        status, body = caller.ask("tree", {**asked, "depth": depth, **more})
        assert status == 200
        return wire.parse_tree("x", body, depth=depth, prefixes=[])[1]

    whole = tree(0, then=2)
    before = tree(2)
    put("cadc:TEST/later")
    named = digest_of(tree_lines(whole))
    assert tree(2, whole="0" * 64) == tree(2, whole=digest_of(b"")) == tree(2) != before
    assert tree(2, whole=named) == before
    assert whole_of(before) == whole
    # The next digit costs no scan either; one that was not counted does, and nobody is told of the past who asks for the present.
    assert folded(tree(3, whole=named), 2) == before
    assert tree(3, whole=named, prefix=min(before)) == {
        prefix: digest for prefix, digest in tree(3, whole=named).items() if prefix.startswith(min(before))
    }
    assert total_of(tree(4, whole=named)) == total_of(tree(0, then=2)) == 21


@pytest.mark.usefixtures("site")
@pytest.mark.parametrize("post", [True, False])
def test_a_site_serves_digests_listings_and_rows_of_what_it_stores(
    caller: Caller, settings: Settings, *, post: bool
) -> None:
    settings.INVENTORY_ROLE = "site"
    stored = put("cadc:A/stored")
    known = artifact_row("cadc:A/known")
    insert_artifact_row(known)
    dropped = put("cadc:A/dropped")
    model_operations.detach_location(artifact_id=dropped.id)
    query = {"set": "stored", "site": own_id()}
    status, body = caller.ask("tree", query | {"depth": "3"}, post=post)
    epoch, tree = wire.parse_tree("x", body, depth=3, prefixes=[])
    assert (status, {prefix: digest.count for prefix, digest in tree.items()}) == (200, {stored.id.hex[:3]: 1})
    status, body = caller.ask("listing", query | {"prefix": stored.id.hex[:2]}, post=post)
    same_epoch, rows, more = wire.parse_listing("x", body, prefixes=[stored.id.hex[:2]], after=None)
    assert (same_epoch, [row.artifact_id for row in rows], more) == (epoch, [stored.id], False)
    gone = uuid.uuid4()
    insert_tombstone(gone, "cadc:A/gone", deleted_at=WHEN)
    ids = ",".join(map(str, [stored.id, known.id, dropped.id, gone, uuid.uuid4()]))
    status, body = caller.ask("rows", {"ids": ids}, post=post)
    assert status == 200
    lines = [line.split("\t") for line in body.decode().splitlines()]
    assert [line[3] for line in lines if line[0].startswith("#storage")] == [
        "deleted-locations",
        "deleted-artifacts",
        "artifacts",
    ]
    assert [line[1] for line in lines if not line[0].startswith("#")] == [str(i) for i in (dropped.id, gone, stored.id)]


@pytest.mark.usefixtures("site")
def test_equal_digests_are_not_sent_again(caller: Caller, settings: Settings) -> None:
    settings.INVENTORY_ROLE = "site"
    put("cadc:A/stored")
    query = {"set": "stored", "site": own_id(), "depth": "1"}
    _, body = caller.ask("tree", query)
    etag = body.splitlines()[-1].split(b"\t")[2].decode()
    assert caller.ask("tree", query, headers={"if-none-match": f'"{etag}"'}) == (304, b"")
    put("cadc:A/more")
    assert caller.ask("tree", query, headers={"if-none-match": f'"{etag}"'})[0] == 200


@pytest.mark.usefixtures("site")
@pytest.mark.parametrize(
    ("what", "query", "says"),
    [
        ("tree", {"set": "all"}, "set must be one of"),
        ("tree", {"set": "stored", "site": "x"}, "site must be an id"),
        ("tree", {"set": "stored", "site": str(uuid.uuid4())}, "this is not site"),
        ("tree", {"depth": "33"}, "depth must be"),
        ("tree", {"depth": "5"}, "1048576 parts are more than the 65536"),
        ("tree", {"depth": "0", "then": "5"}, "1048576 parts are more than the 65536"),
        ("tree", {"depth": "4", "prefix": ["0"] * 17}, "69632 parts are more than the 65536"),
        ("tree", {"prefix": "xyz"}, "prefix must be"),
        ("tree", {"namespace": "nonsense"}, "invalid namespace"),
        ("listing", {}, "prefix is missing"),
        ("listing", {"prefix": "0", "after": "00000"}, "after must be"),
        ("listing", {"prefix": "0", "limit": "0"}, "limit must be"),
        ("rows", {}, "ids must be 1 to 1000"),
        ("rows", {"ids": "x,y"}, "ids must be an id"),
    ],
)
def test_wrong_questions_are_told_so(
    caller: Caller, settings: Settings, what: str, query: dict[str, object], says: str
) -> None:
    settings.INVENTORY_ROLE = "site"
    status, body = caller.ask(what, {"set": "stored", "site": own_id()} | query)
    assert status == 400
    assert says in json.loads(body)["detail"]


@pytest.mark.usefixtures("site")
@pytest.mark.parametrize("what", ["tree", "listing", "rows"])
def test_only_peers_may_ask(what: str) -> None:
    assert Caller("none").ask(what, {})[0] == 401


@pytest.mark.usefixtures("inventory")
def test_a_global_serves_what_a_site_wants_or_holds(caller: Caller, settings: Settings) -> None:
    settings.INVENTORY_ROLE = "global"
    site = StorageSite.objects.create(resource_id="ivo://a", name="a", last_modified=WHEN)
    rows = {uri: artifact_row(uri) for uri in ("a:wanted", "a:b/not", "z:held", "z:not")}
    for row in rows.values():
        insert_artifact_row(row)
    SiteLocation.objects.create(artifact_id=rows["z:held"].id, site=site)
    query = {
        "set": "known",
        "site": str(site.id),
        "namespace": "a:",
        "except": "a:b/",
        "prefix": list("0123456789abcdef"),
    }
    _, body = caller.ask("listing", query)
    _, found, _ = wire.parse_listing("x", body, prefixes=[""], after=None)
    assert {row.artifact_id for row in found} == {rows["a:wanted"].id, rows["z:held"].id}


# --- the command, the task, the gauges, the admin


@pytest.fixture
def different(from_site: RemoteInventory, peer: FakeInventory) -> list[ArtifactRow]:
    """Of ten artifacts of a site one copy is not known here, and one is known that it has no longer."""
    assert from_site.enabled
    rows = [artifact_row(f"cadc:TEST/{number}") for number in range(10)]
    for row in rows:
        peer.add_artifact(row)
    exchange.harvest("peer")
    SiteLocation.objects.filter(artifact_id=rows[0].id).delete()
    peer.remove("artifacts", str(rows[1].id))
    return rows


def command(*arguments: str) -> str:
    out = StringIO()
    call_command("reconcile", *arguments, stdout=out)
    return out.getvalue()


def test_the_command_reports_by_default_and_settles_when_told(different: list[ArtifactRow]) -> None:
    text = command()
    assert "2 differences, 0 settled" in text
    assert f"B5-copy-missing-here  {different[0].uri}" in text
    assert SiteLocation.objects.count() == 9
    assert json.loads(command("--add", "--json"))["settled"] == {"B5-copy-missing-here": 1}
    (report,) = [json.loads(line) for line in command("--apply", "--json", "--remote", "peer").splitlines()]
    assert report["settled"] == {"A5-copy-unknown-there": 1}
    assert [found["uri"] for found in report["found"]] == [different[1].uri]
    assert "equal" in command()


def test_the_command_says_what_failed(different: list[ArtifactRow], peer: FakeInventory) -> None:
    assert different
    with pytest.raises(CommandError, match="no enabled remote 'x'"):
        command("--remote", "x")
    peer.status = {"tree": 503}
    with pytest.raises(CommandError, match="not every remote"):
        command()


def test_the_task_adds_by_default_and_removes_nothing(different: list[ArtifactRow], settings: Settings) -> None:
    tasks.reconcile_remote("peer")
    assert SiteLocation.objects.count() == 10
    settings.INVENTORY_RECONCILE = "all"
    tasks.reconcile_remote("peer")
    assert not SiteLocation.objects.filter(artifact_id=different[1].id).exists()
    settings.INVENTORY_RECONCILE = "report"
    tasks.reconcile_remote("nobody")
    assert [run.mode for run in ReconcileRun.objects.order_by("started_at")] == ["add", "all"]


def test_beat_leaves_out_who_is_being_compared(from_site: RemoteInventory, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []
    monkeypatch.setattr(tasks, "send_task", lambda _task, name: sent.append(name))
    run = ReconcileRun.objects.create(remote=from_site, mode="add", started_at=timezone.now())
    tasks.reconcile_all()
    assert sent == []
    ReconcileRun.objects.filter(id=run.id).update(started_at=timezone.now() - timedelta(hours=2))
    tasks.reconcile_all()
    assert sent == ["peer"]


def test_too_many_removals_ask_first(different: list[ArtifactRow], peer: FakeInventory, settings: Settings) -> None:
    settings.INVENTORY_BRAKE_COUNT, settings.INVENTORY_BRAKE_PERCENT = 3, 0
    for row in different[1:6]:
        peer.remove("artifacts", str(row.id))
    for _ in range(2):
        with pytest.raises(DeletionBrakeError):
            compare.reconcile("peer", mode=Mode.ALL)
        assert SiteLocation.objects.count() == 9
    found = DeletionBrake.objects.get()
    assert (found.source, found.engaged_at is not None) == ("reconcile:peer", True)
    call_command("release_brake", "reconcile:peer", stdout=StringIO())
    assert compare.reconcile("peer", mode=Mode.ALL).applied == {"A5-copy-unknown-there": 5, "B5-copy-missing-here": 1}


def test_gauges_tell_what_is_left(different: list[ArtifactRow], peer: FakeInventory) -> None:
    assert different

    def gauges() -> dict[tuple[str, ...], float]:
        return {
            (sample.name.removeprefix("inventory_reconcile_"), *sample.labels.values()): sample.value
            for metric in metrics.collect()
            for sample in metric.samples
        }

    assert gauges() == {}
    compare.reconcile("peer", mode=Mode.ADD)
    found = gauges()
    assert 0 <= found.pop(("age_seconds", "peer")) < 60
    assert found == {
        ("failing", "peer"): 0,
        ("differences", "peer", "A5-copy-unknown-there"): 1,
        ("differences", "peer", "B5-copy-missing-here"): 0,
    }
    peer.status = {"tree": 503}
    tasks.reconcile_remote("peer")
    assert gauges()["failing", "peer"] == 1
    assert ("age_seconds", "peer") in gauges()


def test_reports_are_in_the_admin(different: list[ArtifactRow]) -> None:
    compare.reconcile("peer", mode=Mode.REPORT)
    client = Client()
    client.force_login(get_user_model().objects.create_superuser("root"))
    page = client.get("/admin/reconcile/reconcilerun/")
    assert b"A5-copy-unknown-there" in page.content
    page = client.get("/admin/reconcile/reconciledifference/")
    assert different[0].uri.encode() in page.content
