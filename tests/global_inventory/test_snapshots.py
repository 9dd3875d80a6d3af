"""A global's snapshot is kept once every site has said so and its past has been harvested."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

import pytest
from django.test import Client
from pytest_django import Settings

from datamodel import auth
from datamodel.models import HarvestState, RemoteInventory
from datamodel.pairing.operations import revoke
from datamodel.permissions import Grant
from datamodel.positions import Position
from datamodel.rows import database_now, insert_tombstone, retire_artifacts
from datamodel.snapshots import operations, queries
from datamodel.snapshots.models import Snapshot
from datamodel.snapshots.tasks import advance_snapshots
from datamodel.uris import Namespace
from tests import peers
from tests.datamodel.snapshots.moments import tick
from tests.global_inventory.conftest import Federation

EPOCH = "0123456789abcdef"


@pytest.fixture(autouse=True)
def _awaits_sites(settings: Settings) -> None:
    settings.INVENTORY_ROLE = "global"
    settings.INVENTORY_SNAPSHOT_AWAITS = "global_inventory.snapshots.queries.awaited"


def take(operator: Client, name: str = "one") -> dict[str, object]:
    answer = operator.post("/snapshots", {"name": name, "namespace": "cadc:TEST/"}, content_type="application/json")
    assert answer.status_code == 201, answer.content
    found: dict[str, object] = answer.json()
    return found


def state_of(operator: Client, name: str = "one") -> tuple[str, list[str]]:
    advance_snapshots()
    item = operator.get(f"/snapshots/{name}").json()
    return item["state"], item["waitingFor"]


def position(site: RemoteInventory, txid: int, epoch: str = EPOCH) -> str:
    assert site.inventory_id is not None
    return str(Position(site.inventory_id, epoch, txid))


def acknowledge(operator: Client, where: str, *, held: object = "", dropped: object = "") -> None:
    answer = operator.post("/pins", {"position": where, "held": str(held), "dropped": str(dropped)})
    assert answer.status_code == 200, answer.content


def harvested(site: RemoteInventory, txid: int, epoch: str = EPOCH) -> None:
    for stream in ("deleted-artifacts", "artifacts", "locations"):
        HarvestState.objects.update_or_create(
            remote=site, name=stream, selector="", defaults={"epoch": epoch, "cur_txid": txid}
        )


def test_a_snapshot_is_pinning_until_every_site_has_said_so_and_has_been_harvested(
    federation: Federation, operator: Client
) -> None:
    alpha, beta = federation.add_site("alpha"), federation.add_site("beta")
    federation.add_artifact("cadc:TEST/1", alpha)
    taken = take(operator)
    assert (taken["state"], taken["waitingFor"], taken["digest"]) == ("pinning", ["alpha", "beta"], None)
    acknowledge(operator, position(alpha, 100), held=taken["id"])
    harvested(alpha, 99)
    assert state_of(operator) == ("pinning", ["alpha", "beta"])
    harvested(alpha, 100)
    assert state_of(operator) == ("pinning", ["beta"]), "a site that cannot be reached is waited for"
    harvested(beta, 1000)
    assert state_of(operator) == ("pinning", ["beta"])
    acknowledge(operator, position(beta, 50), held=taken["id"])
    assert state_of(operator) == ("kept", [])
    assert operator.get("/snapshots/one").json()["artifacts"] == 1


def test_news_of_before_the_moment_that_come_later_are_in_the_digest(federation: Federation, operator: Client) -> None:
    alpha = federation.add_site("alpha")
    late = database_now()
    gone = federation.add_artifact("cadc:TEST/gone", alpha, content_last_modified=late)
    tick()
    taken = take(operator)
    federation.add_artifact("cadc:TEST/late", alpha, content_last_modified=late)
    insert_tombstone(gone.id, gone.uri, deleted_at=late)
    retire_artifacts([gone.id], died_at=database_now())
    acknowledge(operator, position(alpha, 5), held=taken["id"])
    harvested(alpha, 5)
    assert state_of(operator) == ("kept", [])
    lines = b"".join(operator.get("/snapshots/one/manifest?format=csv").streaming_content).decode().splitlines()  # type: ignore[attr-defined]  # a stream
    assert [line.partition(",")[0] for line in lines] == ["uri", "cadc:TEST/late"]


def test_a_site_that_is_switched_off_is_not_waited_for(federation: Federation, operator: Client) -> None:
    alpha = federation.add_site("alpha")
    take(operator)
    assert state_of(operator) == ("pinning", ["alpha"])
    RemoteInventory.objects.filter(id=alpha.id).update(enabled=False)
    assert state_of(operator) == ("kept", [])


def test_the_first_position_of_an_epoch_stands_and_a_new_epoch_is_waited_for_anew(
    federation: Federation, operator: Client
) -> None:
    alpha = federation.add_site("alpha")
    taken = take(operator)
    acknowledge(operator, position(alpha, 100), held=taken["id"])
    acknowledge(operator, position(alpha, 200), held=taken["id"])
    other = "fedcba9876543210"
    harvested(alpha, 150, other)
    assert state_of(operator)[0] == "pinning"
    acknowledge(operator, position(alpha, 300, other), held=taken["id"])
    assert state_of(operator)[0] == "pinning"
    harvested(alpha, 300, other)
    assert state_of(operator)[0] == "kept"


def test_sites_are_told_of_all_snapshots_and_until_when_these_are_all(federation: Federation, operator: Client) -> None:
    federation.add_site("alpha")
    taken = take(operator)
    told = operator.get("/pins").json()
    assert [(pin["id"], pin["state"]) for pin in told["pins"]] == [(taken["id"], "pinning")]
    later = operations.create_snapshot(name="two", namespace=Namespace.parse("cadc:TEST/"), created_by="test")
    assert later.moment.isoformat() >= told["until"]
    assert taken["moment"] <= told["until"]
    assert told["next"] is None
    assert operator.get("/pins", {"after": str(uuid.UUID(int=2**128 - 1))}).json()["pins"] == []


def test_a_deleted_snapshot_is_named_as_released_until_every_site_has_dropped_it(
    federation: Federation, operator: Client
) -> None:
    alpha, beta = federation.add_site("alpha"), federation.add_site("beta")
    taken = take(operator)
    acknowledge(operator, position(alpha, 1), held=taken["id"])
    assert operator.delete("/snapshots/one").status_code == 204
    assert operator.get("/snapshots/one").status_code == 404
    assert [pin["state"] for pin in operator.get("/pins").json()["pins"]] == ["released"]
    acknowledge(operator, position(alpha, 2), held=taken["id"], dropped=taken["id"])
    assert Snapshot.objects.get().state == "released"
    acknowledge(operator, position(beta, 1), dropped=taken["id"])
    assert not Snapshot.objects.exists()


def test_a_site_acknowledges_for_itself_alone(federation: Federation, operator: Client) -> None:
    alpha, beta = peers.pair(federation.add_site("alpha")), peers.pair(federation.add_site("beta"))
    taken = take(operator)
    form = {"position": position(alpha.remote, 1), "held": str(taken["id"])}
    secret = auth.create_api_token(name="plain", grants=frozenset({Grant.HARVEST}), now=datetime.now(UTC))
    plain = Client(headers={"authorization": f"Bearer {secret}"})
    assert plain.get("/pins").status_code == 200
    for caller in (plain, beta.client()):
        refused = caller.post("/pins", form)
        assert refused.status_code == 403
        assert "does not speak for the inventory" in refused.json()["detail"]
    assert alpha.client().post("/pins", form).status_code == 200
    harvested(alpha.remote, 1)
    assert state_of(operator) == ("pinning", ["beta"])
    revoke(name="beta", reason="test")
    assert state_of(operator) == ("kept", [])


def test_a_site_that_is_none_of_ours_cannot_acknowledge(federation: Federation, operator: Client) -> None:
    alpha = federation.add_site("alpha")
    taken = take(operator)
    answer = operator.post("/pins", {"position": str(Position(uuid.uuid4(), EPOCH, 1)), "held": str(taken["id"])})
    assert (answer.status_code, answer.json()["code"]) == (409, "state_conflict")
    assert queries.awaited(Snapshot.objects.get()) == [alpha.name]


@pytest.mark.parametrize("form", [{}, {"position": "x"}, {"position": f"{uuid.uuid4()}.{EPOCH}.1", "held": "x"}])
def test_what_is_no_acknowledgement_is_refused(operator: Client, form: dict[str, str]) -> None:
    assert operator.post("/pins", form).status_code in {400, 409}


def test_only_who_is_granted_takes_lists_and_exchanges_snapshots(reader: Client, writer: Client) -> None:
    body = {"name": "one", "namespace": "cadc:TEST/"}
    assert reader.get("/snapshots").json() == {"items": [], "next": None}
    for caller in (reader, writer):
        assert caller.post("/snapshots", body, content_type="application/json").status_code == 403
        assert caller.get("/pins").status_code == 403
        assert caller.post("/pins").status_code == 403
    assert Client().get("/snapshots").status_code == 401
    assert reader.get("/snapshots/none").status_code == 404
    assert writer.delete("/snapshots/none").status_code == 403
