"""The doors of file sync: explain, numbers, metrics, admin, the command without a broker."""

from __future__ import annotations

import io
import uuid
from datetime import timedelta

import pytest
import redis
from django.conf import settings as django_settings
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.test import Client
from prometheus_client.core import Metric

from datamodel import operations, rows
from datamodel.models import HarvestState, RemoteInventory
from datamodel.uris import ArtifactUri
from site_service.file_sync import attempts, metrics, scan
from site_service.file_sync.models import SyncAttempt
from site_service.storage import registry
from site_service.storage.contract import ArtifactStore
from tests.factories import new_content
from tests.fakes import files
from tests.site_service.file_sync.conftest import CONTENT, Federation

URI = "cadc:TEST/file.fits"


@pytest.fixture(autouse=True)
def _same_store(federation: Federation, store: ArtifactStore) -> None:
    federation.store = store


def explain(client: Client, uri: str = URI) -> dict[str, object]:
    answer = client.get("/explain", {"uri": uri})
    assert answer.status_code == 200
    return dict(answer.json())


def test_explain_follows_an_artifact_through_its_life(client: Client, federation: Federation) -> None:
    assert explain(client)["standing"] == "not known here"
    row = federation.publish(URI, CONTENT)
    assert explain(client)["standing"] == "wanted, not in the queue yet"
    scan.note_missing()
    assert explain(client)["standing"] == "due"
    (lease,) = attempts.claim(batches=1)
    running = explain(client)
    assert running["standing"] == "being pulled"
    assert running["attempt"]["leaseUntil"] is not None  # type: ignore[index]  # a JSON object
    attempts.fail(holder=lease, artifact_id=row.id, reason="no_source", detail="nobody has it", seconds=900)
    waiting = explain(client)
    assert waiting["standing"] == "waiting for its next try"
    attempt = dict(waiting["attempt"])  # type: ignore[call-overload]  # a JSON object
    assert (attempt["lastReason"], attempt["lastError"]) == ("no_source", "nobody has it")
    assert attempt["nextTryAt"] > attempt["queuedAt"]
    attempts.try_now()
    federation.tick()
    stored = explain(client)
    assert stored["standing"] == "stored"
    assert stored["location"] is not None
    assert stored["attempt"] is None
    operations.delete_artifact(uri=ArtifactUri.parse(URI))
    deleted = explain(client)
    assert deleted["artifact"] is None
    assert [event["id"] for event in deleted["tombstones"]] == [str(row.id)]  # type: ignore[attr-defined]
    assert [old["state"] for old in deleted["retired"]] == ["retained"]  # type: ignore[attr-defined]


def test_explain_names_the_rule_that_decided_and_the_globals_cursors(client: Client, federation: Federation) -> None:
    HarvestState.objects.create(remote=RemoteInventory.objects.get(), name="artifacts", selector="", covers=["cadc:"])
    found = explain(client)
    assert found["policy"] == {"wanted": True, "priority": 0, "namespace": "cadc:"}
    assert [(each["stream"], each["covers"]) for each in found["globals"]] == [("artifacts", ["cadc:"])]  # type: ignore[attr-defined]
    assert explain(client, "gemini:f")["policy"] == {"wanted": False, "priority": 0, "namespace": None}


def test_explain_says_that_a_known_artifact_is_not_wanted(client: Client, federation: Federation) -> None:
    federation.publish("gemini:f", CONTENT)
    assert explain(client, "gemini:f")["standing"] == "not wanted here"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("get", "/explain", 400),
        ("get", "/explain?uri=nonsense", 400),
        ("post", "/explain?uri=cadc:f", 405),
        ("put", "/sync", 405),
    ],
)
def test_nonsense_is_refused(client: Client, method: str, path: str, status: int) -> None:
    assert client.generic(method.upper(), path).status_code == status


@pytest.mark.parametrize("path", ["/explain?uri=cadc:f", "/sync"])
def test_strangers_see_nothing(path: str) -> None:
    assert Client().get(path).status_code == 401


def test_the_numbers_count_what_is_missing_before_and_after_it_is_queued(
    client: Client, federation: Federation
) -> None:
    federation.publish("cadc:a", b"12345")
    federation.publish("cadc:b", b"123")
    federation.publish("gemini:unwanted", b"1")
    before = client.get("/sync").json()
    assert (before["missing"], before["unseen"], before["due"]) == (2, 2, 0)
    scan.note_missing()
    after = client.get("/sync").json()
    assert (after["missing"], after["missingBytes"], after["unseen"], after["due"]) == (2, 8, 0, 2)
    assert after["isPaused"] is False
    federation.alpha.batch_status = 404
    federation.alpha.faults.append(files.status(404))
    federation.tick()
    done = client.get("/sync").json()
    assert (done["missing"], done["due"], done["inFlight"]) == (1, 0, 0)
    assert done["failing"] == {"remote_refused": 1}
    assert {reason: one["files"] for reason, one in done["outcomes"].items()} == {"remote_refused": 1, "stored": 1}


def test_a_lost_copy_is_counted_before_it_is_queued(client: Client, federation: Federation) -> None:
    row = operations.record_stored(uri=ArtifactUri.parse("gemini:f"), content=new_content()).artifact
    scan.note_missing()
    operations.detach_location(artifact_id=row.id)
    assert client.get("/sync").json()["unseen"] == 1


def test_an_operator_makes_what_waits_due_and_rings_for_it(client: Client, federation: Federation) -> None:
    broker = redis.Redis.from_url(django_settings.INVENTORY_DRAMATIQ_URL)
    broker.flushdb()
    federation.publish(URI, CONTENT)
    federation.alpha.faults.append(files.status(404))
    federation.tick()
    assert client.post("/sync").json() == {"hastened": 1}
    assert SyncAttempt.objects.get().lease_holder is not None
    assert broker.keys("*sync*")
    broker.flushdb()
    broker.close()


def samples(found: list[Metric]) -> dict[str, float]:
    return {
        sample.name + "".join(f"/{value}" for value in sample.labels.values()): sample.value
        for metric in found
        for sample in metric.samples
    }


def test_the_metrics_say_what_is_missing_failing_and_done(federation: Federation) -> None:
    federation.publish("cadc:a", b"12345")
    federation.publish("cadc:b", b"123")
    federation.alpha.batch_status = 404
    federation.alpha.faults.append(files.status(404))
    federation.tick()
    values = samples(list(metrics.collect()))
    stored = 8 - int(values["inventory_sync_missing_bytes"])
    assert values["inventory_sync_missing_files"] == 1
    assert values["inventory_sync_failing_files/remote_refused"] == 1
    assert values["inventory_sync_files_total/stored"] == 1
    assert values["inventory_sync_bytes_total/stored"] == stored
    assert values["inventory_sync_paused"] == 0


def test_an_expired_lease_is_a_metric(federation: Federation) -> None:
    federation.publish("cadc:a", b"12345")
    scan.note_missing()
    attempts.claim(batches=1)
    SyncAttempt.objects.update(lease_until=rows.database_now() - timedelta(seconds=1))
    assert samples(list(metrics.collect()))["inventory_sync_expired_leases"] == 1


def test_the_metrics_are_served(client: Client) -> None:
    assert b"inventory_sync_missing_files 0.0" in client.get("/metrics").content


def test_the_admin_lists_attempts_and_hastens_them(federation: Federation) -> None:
    admin = Client()
    admin.force_login(get_user_model().objects.create_superuser(username=uuid.uuid4().hex, email="", password="x"))
    federation.publish(URI, CONTENT)
    federation.alpha.faults.append(files.status(404))
    federation.tick()
    listed = admin.get("/admin/file_sync/syncattempt/").content.decode()
    assert "remote_refused" in listed
    row = SyncAttempt.objects.get()
    assert admin.get(f"/admin/file_sync/syncattempt/{row.pk}/change/").status_code == 200
    selected = {"action": "try_now", "_selected_action": str(row.pk)}
    answer = admin.post("/admin/file_sync/syncattempt/", selected, follow=True)
    assert "1 artifacts are due now" in answer.content.decode()
    assert SyncAttempt.objects.get().lease_holder is not None


def test_sync_once_carries_until_nothing_is_due(federation: Federation) -> None:
    for number in range(60):
        federation.publish(f"cadc:{number}", b"%d" % number)
    federation.alpha.batch_status = 404
    federation.alpha.faults.append(files.status(404))
    printed = io.StringIO()
    call_command("sync_once", threads=2, stdout=printed)
    assert "59" in printed.getvalue()
    assert "remote_refused" in printed.getvalue()
    printed = io.StringIO()
    call_command("sync_once", threads=2, now=True, stdout=printed)
    assert not SyncAttempt.objects.exists()
    assert len(list(registry.get_store().iterate())) == 60


def test_sync_once_stops_when_no_global_answers(federation: Federation) -> None:
    federation.publish(URI, CONTENT)
    federation.inventory.statuses.append(503)
    printed = io.StringIO()
    call_command("sync_once", stdout=printed)
    assert "Stopped early" in printed.getvalue()
