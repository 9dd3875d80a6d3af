"""The doors of scrub: beat and worker, JSON, metrics, admin."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import dramatiq
import pytest
from django.contrib.auth import get_user_model
from django.test import Client
from dramatiq.brokers.redis import RedisBroker

from datamodel import auth, rows
from datamodel.permissions import Grant
from site_service import broker as site_broker
from site_service.scrub import operations, queries, scan, tasks
from site_service.scrub.models import CopyVerification, DamagedCopy, ScrubPolicy, ScrubProgress
from tests.faults import flip_bit
from tests.site_service.scrub.conftest import CONTENT, URI, Scrubbed


@pytest.fixture
def worker() -> Iterator[RedisBroker]:
    """A worker thread of the real broker, over the test's Redis."""
    broker = site_broker.broker
    broker.flush_all()
    running = dramatiq.Worker(broker, worker_timeout=50, worker_threads=2, queues={"scrub"})
    running.start()
    yield broker
    running.stop()
    broker.flush_all()


def post(client: Client, path: str, document: object) -> dict[str, Any]:
    answer = client.post(path, json.dumps(document), content_type="application/json")
    assert answer.status_code == 200, answer.content
    return dict(answer.json())


def test_a_tick_and_a_worker_read_everything_run_after_run(
    scrubbed: Scrubbed, worker: RedisBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("site_service.scrub.rules.RUN_FILES", 3)
    ids = [scrubbed.put(f"cadc:TEST/{number}", b"%d" % number) for number in range(10)]
    scrubbed.make_due()
    flip_bit(scrubbed.file_of(ids[4]), 0)
    tasks.enqueue_readings()
    worker.join("scrub", timeout=20_000)
    assert CopyVerification.objects.filter(result="read").count() == 9
    assert DamagedCopy.objects.get().artifact_id == ids[4]
    assert ScrubProgress.objects.get().lease_holder is None


def test_a_flushed_broker_loses_nothing(scrubbed: Scrubbed, worker: RedisBroker) -> None:
    scrubbed.put()
    scrubbed.make_due()
    assert operations.begin_run(seconds=60) is not None  # its message is lost
    tasks.enqueue_readings()
    worker.join("scrub", timeout=20_000)
    assert CopyVerification.objects.get().result == "written"
    ScrubProgress.objects.update(lease_until=rows.database_now() - timedelta(seconds=1))
    tasks.enqueue_readings()
    worker.join("scrub", timeout=20_000)
    assert CopyVerification.objects.get().result == "read"


def test_tidying_reads_damaged_bytes_again(scrubbed: Scrubbed, worker: RedisBroker) -> None:
    lost = scrubbed.put()
    file = scrubbed.file_of(lost)
    scrubbed.make_due()
    file.rename(file.with_name("aside"))
    scrubbed.run()
    file.with_name("aside").rename(file)
    tasks.tidy()
    worker.join("scrub", timeout=20_000)
    assert scrubbed.is_in_service(lost)


def test_progress_as_json(scrubbed: Scrubbed, client: Client) -> None:
    ids = [scrubbed.put(f"cadc:TEST/{number}") for number in range(3)]
    ScrubPolicy.objects.create(namespace="mast:", period_seconds=60, from_hour=22, until_hour=6, bytes_per_second=5)
    scrubbed.make_due(*ids[:2])
    flip_bit(scrubbed.file_of(ids[1]), 9)
    scrubbed.run()
    document = client.get("/scrub").json()
    first, second = document["rules"]
    assert (first["namespace"], first["files"], first["bytes"]) == ("", 2, 2 * len(CONTENT))
    assert (first["verifiedFiles"], first["overdueFiles"]) == (1, 0)
    assert 0 <= first["oldestSeconds"] < 60
    assert (second["namespace"], second["hours"], second["bytesPerSecond"]) == ("mast:", "22-6", 5)
    assert (document["damaged"], document["unrepairable"], document["unreadable"]) == (1, 0, 0)
    assert document["outcomes"]["digest"] == {"files": 1, "bytes": len(CONTENT)}


@pytest.mark.usefixtures("scrubbed")
def test_progress_needs_the_grant_read() -> None:
    assert Client().get("/scrub").status_code == 401
    harvester = auth.create_api_token(name="h", grants=frozenset({Grant.HARVEST}), now=rows.database_now())
    answer = Client(headers={"authorization": f"Bearer {harvester}"}).get("/scrub")
    assert answer.status_code == 403
    assert Client().post("/verified", "{}", content_type="application/json").status_code == 401


def test_verified_copies_in_bulk(scrubbed: Scrubbed, client: Client) -> None:
    good, bad = scrubbed.put("cadc:TEST/good"), scrubbed.put()
    scrubbed.make_due()
    scrubbed.file_of(bad).unlink()
    scrubbed.run()
    asked = ["cadc:TEST/good", URI, "cadc:TEST/unknown", "no uri"]
    document = post(client, "/verified", {"uris": asked})
    (copy,) = document["copies"]
    assert (copy["uri"], copy["id"], copy["contentLength"]) == ("cadc:TEST/good", str(good), len(CONTENT))
    assert copy["contentChecksum"].startswith("md5:")
    assert len(copy["contentSha256"]) == 64
    (known,) = queries.verified_copies(["cadc:TEST/good"])
    assert copy["verifiedAt"].rstrip("Z").startswith(known.verified_at.isoformat(timespec="seconds")[:19])


@pytest.mark.parametrize(
    "body", ["", "[]", '{"uris": "a"}', '{"uris": [1]}', '{"uris": ' + json.dumps(["a"] * 10_001) + "}"]
)
def test_questions_that_make_no_sense_are_refused(client: Client, body: str) -> None:
    answer = client.post("/verified", body, content_type="application/json")
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")


def test_metrics(scrubbed: Scrubbed, client: Client) -> None:
    good, bad = scrubbed.put("cadc:TEST/good"), scrubbed.put()
    del good
    scrubbed.make_due()
    flip_bit(scrubbed.file_of(bad), 9)
    scrubbed.run()
    CopyVerification.objects.update(verified_at=rows.database_now() - timedelta(days=3))
    operations.note_failed_repair(artifact_id=bad, reason="no_source", detail="nobody")
    text = client.get("/metrics").content.decode()
    (age,) = [line for line in text.splitlines() if line.startswith("inventory_scrub_oldest_seconds{")]
    assert float(age.split()[-1]) == pytest.approx(3 * 24 * 3600, abs=60)
    (size,) = [line for line in text.splitlines() if line.startswith('inventory_scrub_bytes_total{result="read"}')]
    assert float(size.split()[-1]) == len(CONTENT)
    assert 'inventory_scrub_files_total{result="digest"} 1.0' in text
    assert "inventory_scrub_damaged_copies 1.0" in text
    assert "inventory_scrub_unrepairable_copies 1.0" in text
    assert "inventory_scrub_unreadable_copies 0.0" in text
    assert 'inventory_collector_failed{module="site_service.scrub.metrics"} 0.0' in text


@pytest.fixture
def admin_page() -> Client:
    admin = Client()
    admin.force_login(get_user_model().objects.create_superuser(username=uuid.uuid4().hex, email="", password="x"))
    return admin


def test_the_admin_shows_findings_progress_and_the_record(scrubbed: Scrubbed, admin_page: Client) -> None:
    scrubbed.put("cadc:TEST/good")
    bad = scrubbed.put()
    scrubbed.make_due()
    flip_bit(scrubbed.file_of(bad), 9)
    scrubbed.run()
    listed = admin_page.get("/admin/scrub/damagedcopy/").content.decode()
    assert URI in listed
    row = DamagedCopy.objects.get()
    assert admin_page.get(f"/admin/scrub/damagedcopy/{row.pk}/change/").status_code == 200
    progress = admin_page.get("/admin/scrub/scrubpolicy/").content.decode()
    assert "(all others)" in progress
    assert "Damaged: 1" in progress
    assert admin_page.get("/admin/scrub/copyverification/").status_code == 200
    assert admin_page.get(f"/admin/scrub/damagedcopy/?q={row.artifact_id}").status_code == 200


def test_the_admin_has_damaged_bytes_read_again(scrubbed: Scrubbed, admin_page: Client, worker: RedisBroker) -> None:
    bad = scrubbed.put()
    file = scrubbed.file_of(bad)
    scrubbed.make_due()
    flip_bit(file, 9)
    scrubbed.run()
    flip_bit(file, 9)
    selected = {"action": "read_again", "_selected_action": str(DamagedCopy.objects.get().pk)}
    answer = admin_page.post("/admin/scrub/damagedcopy/", selected, follow=True)
    assert "1 are read again" in answer.content.decode()
    worker.join("scrub", timeout=20_000)
    assert scrubbed.is_in_service(bad)


def test_the_admin_edits_the_schedule(scrubbed: Scrubbed, admin_page: Client) -> None:
    artifact_id = scrubbed.put()
    values = {"namespace": "cadc:TEST/", "period_seconds": "0", "from_hour": "0", "until_hour": "0", "note": ""}
    assert admin_page.post("/admin/scrub/scrubpolicy/add/", values).status_code == 302
    refused = admin_page.post("/admin/scrub/scrubpolicy/add/", values | {"namespace": "nonsense"})
    assert "must end with" in refused.content.decode()
    scan.follow(queries.configured_schedule())
    assert CopyVerification.objects.get(location_id=artifact_id).next_at is None


def test_an_operator_has_some_copies_read_now(scrubbed: Scrubbed, worker: RedisBroker, client: Client) -> None:
    ids = [scrubbed.put(f"cadc:TEST/{number}", b"%d" % number) for number in range(4)]
    flip_bit(scrubbed.file_of(ids[1]), 0)
    document = {"uris": ["cadc:TEST/1", "cadc:TEST/2", "cadc:TEST/unknown", "not a uri"]}
    reader = auth.create_api_token(name="r", grants=frozenset({Grant.READ}), now=rows.database_now())
    refused = client.post(
        "/scrub", json.dumps(document), content_type="application/json", headers={"Authorization": f"Bearer {reader}"}
    )
    assert refused.status_code == 403
    operator = auth.create_api_token(name="o", grants=frozenset({Grant.OPERATE}), now=rows.database_now())
    answer = client.post(
        "/scrub", json.dumps(document), content_type="application/json", headers={"Authorization": f"Bearer {operator}"}
    )
    assert answer.json() == {"due": 2, "sent": 2}
    worker.join("scrub", timeout=20_000)
    assert DamagedCopy.objects.get().artifact_id == ids[1]
    assert CopyVerification.objects.filter(result="read").count() == 1
