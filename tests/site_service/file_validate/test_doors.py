"""JSON, admin, beat and metrics: the report can be read everywhere, and nothing is applied unasked."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import dramatiq
import pytest
from django.contrib.auth import get_user_model
from django.test import Client
from dramatiq.brokers.redis import RedisBroker
from pytest_django import Settings

from datamodel import auth
from datamodel.models import DeletedStorageLocationEvent, StorageLocation
from datamodel.permissions import Grant
from site_service import broker as site_broker
from site_service.file_validate import metrics
from site_service.file_validate.models import QuarantinedObject, ValidationFinding, ValidationRun
from site_service.file_validate.quarantine import decide_purge
from site_service.file_validate.tasks import advance_validation
from tests.site_service.file_validate.conftest import Site


def caller(*grants: Grant) -> Client:
    token = auth.create_api_token(name="tester", grants=frozenset(grants), now=datetime.now(UTC))
    return Client(headers={"Authorization": f"Bearer {token}"})


@pytest.fixture
def admin(place: Site) -> Client:
    del place
    get_user_model().objects.create_superuser("jane", password="x")
    client = Client()
    assert client.login(username="jane", password="x")
    return client


def gauges() -> dict[str, float]:
    return {
        sample.name + "".join(sample.labels.values()): sample.value
        for family in metrics.collect()
        for sample in family.samples
    }


# JSON


def test_findings_are_listed_page_by_page(place: Site) -> None:
    for number in range(5):
        place.write(f"cadc:TEST/{number}")
    place.run()
    client, seen, path = caller(Grant.OPERATE), [], "?limit=2&label=no-matching-artifact"
    while path:
        answer = client.get(f"/validation/findings{path}").json()
        seen += [item["uri"] for item in answer["items"]]
        path = answer["next"]
    assert sorted(seen) == [f"cadc:TEST/{number}" for number in range(5)]
    (item,) = client.get("/validation/findings?limit=1").json()["items"]
    assert item["action"] == "quarantine_object"
    assert item["content_length"] == 7
    assert client.get("/validation/findings?state=applied").json() == {"items": [], "next": None}


def test_runs_are_listed_newest_first(place: Site) -> None:
    place.write()
    place.run()
    newest = place.run()
    runs = caller(Grant.OPERATE).get("/validation/runs").json()["runs"]
    assert runs[0]["id"] == str(newest.id)
    assert runs[0]["counts"] == {"valid": 0, "no-matching-artifact": 1}


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "label=nonsense", "state=x", "after=-1"])
def test_nonsense_is_refused(place: Site, query: str) -> None:
    del place
    assert caller(Grant.OPERATE).get(f"/validation/findings?{query}").status_code == 400


@pytest.mark.parametrize("path", ["/validation/findings", "/validation/runs"])
def test_only_operators_read_the_report(place: Site, path: str) -> None:
    del place
    assert caller(Grant.READ, Grant.WRITE).get(path).status_code == 403
    assert Client().get(path).status_code == 401


# Admin

FINDINGS = "/admin/file_validate/validationfinding/"
QUARANTINE = "/admin/file_validate/quarantinedobject/"


def test_the_admin_shows_the_report_and_applies_what_is_chosen(place: Site, admin: Client, settings: Settings) -> None:
    settings.INVENTORY_VALIDATE_GRACE_SECONDS = 0
    row, lost = place.put("cadc:TEST/lost")
    orphan = place.write("cadc:TEST/orphan")
    place.store.remove(lost.storage_id)
    place.run()
    page = admin.get(FINDINGS).content.decode()
    assert "cadc:TEST/lost" in page
    assert "cadc:TEST/orphan" in page
    assert "no-matching-storageLocation" in page
    assert admin.get("/admin/file_validate/validationrun/").status_code == 200
    chosen = ValidationFinding.objects.get(uri="cadc:TEST/orphan").pk
    admin.post(FINDINGS, {"action": "apply", "_selected_action": chosen})
    held = QuarantinedObject.objects.get()
    assert (held.storage_id, held.quarantined_by) == (orphan.storage_id, "jane")
    assert StorageLocation.objects.get().artifact_id == row.id
    assert not DeletedStorageLocationEvent.objects.exists()
    assert admin.get(f"{FINDINGS}{chosen}/change/").status_code == 200
    assert admin.get(f"{FINDINGS}add/").status_code == 403
    assert "cadc:TEST/lost" in admin.get(f"{FINDINGS}?q=cadc:TEST/l").content.decode()


def test_only_superusers_decide(place: Site) -> None:
    place.write()
    place.run()
    user = get_user_model().objects.create_user("joe", password="x", is_staff=True)
    client = Client()
    client.force_login(user)
    client.post(FINDINGS, {"action": "apply", "_selected_action": ValidationFinding.objects.get().pk})
    assert ValidationFinding.objects.get().state == "open"


@pytest.fixture
def worker(place: Site) -> Iterator[RedisBroker]:
    """A Dramatiq worker in this process, on the real Redis."""
    del place
    broker = site_broker.broker
    broker.flush_all()
    running = dramatiq.Worker(broker, worker_timeout=50, worker_threads=1)
    running.start()
    yield broker
    running.stop()


def test_quarantine_is_given_back_and_removed_in_the_admin(place: Site, admin: Client, worker: RedisBroker) -> None:
    kept, gone = place.write("cadc:TEST/kept"), place.write("cadc:TEST/gone")
    place.run()
    place.apply()
    ids = {held.uri: str(held.id) for held in QuarantinedObject.objects.all()}
    assert "cadc:TEST/kept" in admin.get(QUARANTINE).content.decode()
    admin.post(QUARANTINE, {"action": "restore", "_selected_action": ids["cadc:TEST/kept"]})
    assert StorageLocation.objects.get().storage_id == kept.storage_id
    purge = {"action": "purge", "_selected_action": ids["cadc:TEST/gone"]}
    admin.post(QUARANTINE, purge)
    assert QuarantinedObject.objects.get(id=ids["cadc:TEST/gone"]).state == "quarantined"
    admin.post(QUARANTINE, {**purge, "reason": "junk of a test"})
    worker.join("retention", timeout=20_000)
    held = QuarantinedObject.objects.get(id=ids["cadc:TEST/gone"])
    assert (held.state, held.reason) == ("purged", "junk of a test")
    assert not place.path(gone).exists()


# Beat


def test_beat_advances_a_report_and_applies_nothing(place: Site, settings: Settings) -> None:
    settings.INVENTORY_VALIDATE_GRACE_SECONDS = 0
    place.write()
    _, lost = place.put("cadc:TEST/lost")
    place.store.remove(lost.storage_id)
    for _ in range(50):
        advance_validation()
        if ValidationRun.objects.get().state == "complete":
            break
    run = ValidationRun.objects.get()
    assert (run.state, run.started_by) == ("complete", "beat")
    assert {label for label, _, _ in place.found()} == {"no-matching-artifact", "no-matching-storageLocation"}
    assert StorageLocation.objects.exists()
    assert not QuarantinedObject.objects.exists()
    advance_validation()
    assert ValidationRun.objects.count() == 1
    ValidationRun.objects.update(started_at=datetime.now(UTC) - timedelta(days=8))
    advance_validation()
    assert ValidationRun.objects.count() == 2


def test_beat_can_be_switched_off_and_survives_a_store_that_does_not_answer(place: Site, settings: Settings) -> None:
    settings.INVENTORY_VALIDATE_SECONDS = 0
    advance_validation()
    assert not ValidationRun.objects.exists()
    settings.INVENTORY_VALIDATE_SECONDS = 60
    (place.root / "objects").rename(place.root / "away")
    advance_validation()
    assert gauges()["inventory_validate_failing"] == 1
    (place.root / "away").rename(place.root / "objects")
    advance_validation()
    assert gauges()["inventory_validate_failing"] == 0


def test_a_lost_broker_costs_a_decided_removal_one_tick(place: Site, worker: RedisBroker, settings: Settings) -> None:
    settings.INVENTORY_VALIDATE_SECONDS = 0
    orphan = place.write()
    place.run()
    place.apply()
    decide_purge(object_id=QuarantinedObject.objects.get().id, decided_by="me", reason="junk")
    worker.flush_all()
    advance_validation()
    worker.join("retention", timeout=20_000)
    assert QuarantinedObject.objects.get().state == "purged"
    assert not place.path(orphan).exists()


# Metrics


def test_gauges_tell_findings_by_label_the_age_of_the_last_word_and_quarantine(place: Site) -> None:
    before = gauges()
    assert math.isnan(before["inventory_validate_complete_age_seconds"])
    assert before["inventory_validate_findingsno-matching-artifact"] == 0
    place.write(content=b"12345")
    place.run()
    found = gauges()
    assert found["inventory_validate_findingsno-matching-artifact"] == 1
    assert 0 <= found["inventory_validate_complete_age_seconds"] < 60
    place.apply()
    found = gauges()
    assert found["inventory_validate_findingsno-matching-artifact"] == 0
    assert (found["inventory_quarantined_objects"], found["inventory_quarantined_bytes"]) == (1, 5)
