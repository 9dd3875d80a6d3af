"""Retire as operators use it: HTTP, the command, the admin, beat."""

from __future__ import annotations

import io
import json
import uuid
from datetime import UTC, datetime
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command
from django.test import Client

from datamodel.auth import create_api_token
from datamodel.models import StorageLocation
from datamodel.permissions import ALL_GRANTS, Grant
from site_service.retention import retire, tasks
from site_service.retention.models import CopyRelease, RetireRun
from tests.fakes.releasing import FakeReleasing
from tests.site_service.retention.conftest import NAMESPACE, Copies, begin, retired


def caller(*grants: Grant) -> Client:
    token = create_api_token(name=f"may-{len(grants)}", grants=frozenset(grants), now=datetime.now(UTC))
    return Client(headers={"authorization": f"Bearer {token}"})


@pytest.fixture
def operator(inventory_of_all: FakeReleasing) -> Client:
    return caller(Grant.OPERATE)


def post(client: Client, status: int = 200, **asked: Any) -> Any:
    response = client.post("/retire", json.dumps(asked), "application/json")
    assert response.status_code == status, response.content
    return response.json()


def test_a_preview_counts_and_begins_nothing(copies: Copies, operator: Client) -> None:
    rows = copies.fill(3)
    assert post(operator, namespace=NAMESPACE) == {
        "namespace": NAMESPACE,
        "files": 3,
        "bytes": sum(row.content_length for row in rows),
        "wantedFiles": 0,
        "wantedBytes": 0,
        "brake": "",
    }
    assert not RetireRun.objects.exists()


def test_a_run_is_begun_followed_and_its_refusals_are_listed_by_page(
    copies: Copies, operator: Client, inventory_of_all: FakeReleasing
) -> None:
    rows = copies.fill(3)
    inventory_of_all.refusals = {row.uri: "too_few_copies" for row in rows[1:]}
    begun = post(operator, 202, namespace=NAMESPACE, apply=True, reason="disk is full")
    assert (begun["state"], begun["reason"], begun["startedBy"]) == ("running", "disk is full", "may-1")
    assert post(operator, 202, namespace=NAMESPACE, apply=True, reason="again")["id"] == begun["id"]
    tasks.advance_retirement()
    shown = operator.get(f"/retire/{begun['id']}").json()
    assert (shown["state"], shown["files"], shown["droppedFiles"], shown["refusedFiles"]) == ("finished", 3, 1, 2)
    assert [run["id"] for run in operator.get("/retire").json()["runs"]] == [begun["id"]]
    listed, after = list[dict[str, str]](), ""
    for _ in range(2):
        page = operator.get(f"/retire/{begun['id']}/refusals", {"limit": "1", "after": after}).json()
        listed += page["items"]
        after = page["next"]
    assert "next" not in operator.get(f"/retire/{begun['id']}/refusals", {"limit": "1", "after": after}).json()
    assert [(item["uri"], item["reason"]) for item in listed] == [(row.uri, "too_few_copies") for row in rows[1:]]
    assert listed[0]["detail"] == "global: 0 verified copies would remain, 1 must"


def test_a_run_is_cancelled_over_http(copies: Copies, operator: Client) -> None:
    copies.fill(1)
    run = begin()
    assert operator.delete(f"/retire/{run.id}").json()["state"] == "cancelled"
    assert operator.delete(f"/retire/{run.id}").status_code == 200
    tasks.advance_retirement()
    assert StorageLocation.objects.exists()
    finished = retired("cadc:NOTHING/")
    refused = operator.delete(f"/retire/{finished.id}")
    assert (refused.status_code, refused["Content-Type"]) == (409, "application/problem+json")


def test_wrong_requests_say_what_is_wrong(copies: Copies, operator: Client) -> None:
    assert post(operator, 400, namespace="cadc:TEST")["code"] == "invalid_uri"
    post(operator, 400, namespace=NAMESPACE, apply=True)
    post(operator, 400)
    assert operator.get(f"/retire/{uuid.uuid4()}").status_code == 404
    assert operator.get(f"/retire/{uuid.uuid4()}/refusals").status_code == 404
    assert operator.get(f"/retire/{begin().id}/refusals?limit=100000").status_code == 400


def test_only_operators_may_retire(copies: Copies) -> None:
    copies.fill(1)
    writer = caller(*(ALL_GRANTS - {Grant.OPERATE}))
    run = begin()
    for answer in (
        writer.post("/retire", json.dumps({"namespace": NAMESPACE}), "application/json"),
        writer.get("/retire"),
        writer.get(f"/retire/{run.id}"),
        writer.delete(f"/retire/{run.id}"),
        writer.get(f"/retire/{run.id}/refusals"),
    ):
        assert answer.status_code == 403


def manage(*argv: str) -> tuple[str, str]:
    out, err = io.StringIO(), io.StringIO()
    call_command("retire", *argv, stdout=out, stderr=err)
    return out.getvalue(), err.getvalue()


def test_the_command_previews_unless_told(copies: Copies, inventory_of_all: FakeReleasing) -> None:
    copies.fill(2)
    out, _ = manage(NAMESPACE)
    assert f"stored here under {NAMESPACE}: 2 files" in out
    assert "This was a preview" in out
    assert not RetireRun.objects.exists()


def test_the_command_retires_and_tells_why_files_stay(copies: Copies, inventory_of_all: FakeReleasing) -> None:
    one, two, _ = copies.fill(3)
    inventory_of_all.refusals[one.uri] = "too_few_copies"
    inventory_of_all.leaves_out.add(two.uri)
    out, err = manage(NAMESPACE, "--apply", "--reason", "disk is full")
    assert "running; 3 files listed, 1 dropped" in out
    assert f"{one.uri}: too_few_copies" in err
    assert "1 wait, asked: global left it out of its answer" in err
    assert set(StorageLocation.objects.values_list("artifact_id", flat=True)) == {one.id, two.id}
    out, _ = manage("--cancel", str(RetireRun.objects.get().id))
    assert "cancelled" in out


@pytest.mark.parametrize(
    "argv", [[], ["cadc:TEST"], [NAMESPACE, "--apply"], ["--cancel", "5b3d4b8e-0000-4000-8000-000000000000"]]
)
def test_the_command_refuses_what_it_cannot_do(copies: Copies, argv: list[str]) -> None:
    with pytest.raises(CommandError):
        manage(*argv)


def test_beat_goes_on_with_runs_and_forgets_old_ones_when_there_are_none(
    copies: Copies, inventory_of_all: FakeReleasing, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies.fill(1)
    run = begin()
    tasks.advance_retirement()
    run.refresh_from_db()
    assert run.state == "finished"
    monkeypatch.setattr(retire, "_RUNS_KEPT", 0)
    tasks.advance_retirement()
    assert not RetireRun.objects.exists()
    assert not CopyRelease.objects.exists()


@pytest.fixture
def admin(inventory_of_all: FakeReleasing) -> Client:
    client = Client()
    client.force_login(get_user_model().objects.create_superuser("boss", "", "x"))
    return client


def test_the_admin_counts_before_it_begins_a_run(copies: Copies, admin: Client) -> None:
    copies.fill(2)
    form = {"namespace": NAMESPACE, "reason": "disk is full"}
    page = admin.post("/admin/retention/retirerun/add/", form)
    assert "2 files" in page.content.decode()
    assert not RetireRun.objects.exists()
    assert admin.post("/admin/retention/retirerun/add/", form | {"confirm": "on"}).status_code == 302
    run = RetireRun.objects.get()
    assert (run.namespace, run.reason, run.started_by) == (NAMESPACE, "disk is full", "boss")
    assert NAMESPACE in admin.get("/admin/retention/retirerun/").content.decode()
    action = {"action": "cancel", "_selected_action": [str(run.id)]}
    assert admin.post("/admin/retention/retirerun/", action).status_code == 302
    run.refresh_from_db()
    assert run.state == "cancelled"


def test_the_admin_lists_what_stays_and_why(copies: Copies, admin: Client, inventory_of_all: FakeReleasing) -> None:
    (row,) = copies.fill(1)
    inventory_of_all.refusals[row.uri] = "too_few_copies"
    retired()
    page = admin.get("/admin/retention/copyrelease/?state__exact=refused").content.decode()
    assert row.uri in page
    assert "too_few_copies" in page
    assert admin.get(f"/admin/retention/copyrelease/{CopyRelease.objects.get().id}/change/").status_code == 200


def test_a_user_who_is_no_superuser_begins_nothing(copies: Copies) -> None:
    client = Client()
    client.force_login(get_user_model().objects.create_user("staff", "", "x", is_staff=True))
    assert client.get("/admin/retention/retirerun/add/").status_code == 403
