"""The doors that both roles have: probes, metrics, VOSI, documents, landing page, and errors outside of views."""

from __future__ import annotations

import json
import threading
import xml.etree.ElementTree as ET
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from django.contrib.auth import get_user_model
from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.db import OperationalError, connection
from django.http import HttpRequest, HttpResponse
from django.test import Client, RequestFactory
from django.urls import path
from prometheus_client.parser import text_string_to_metric_families
from pytest_django import Settings

from datamodel import auth, errors, health, middleware, views
from datamodel.health import ServiceState, StateReport
from datamodel.models import InventoryIdentity, StorageSite
from datamodel.permissions import Grant
from datamodel.urls import urlpatterns as routes

VOSI = "{http://www.ivoa.net/xml/VOSIAvailability/v1.0}"
CAPABILITIES = "{http://www.w3.org/2001/XMLSchema-instance}type"


def failing_check() -> None:
    raise errors.StorageUnavailableError("the store is on fire")


def broken_check() -> None:
    raise RuntimeError("never shown to callers")


release = threading.Event()


def hanging_check() -> None:
    release.wait(60)


def read_only() -> StateReport:
    return StateReport(ServiceState.READ_ONLY, "below the mark <&>")


def raises_unforeseen(request: HttpRequest) -> HttpResponse:
    raise RuntimeError("secret reason")


def loses_database(request: HttpRequest) -> HttpResponse:
    raise OperationalError("server closed the connection")


urlpatterns = [*routes, path("files/x/metrics", views.livez, name="file"), path("broken", raises_unforeseen)]
urlpatterns += [path("lost", loses_database)]
handler400 = handler403 = "datamodel.views.refused"
handler404 = "datamodel.views.not_found"
handler500 = "datamodel.views.failed"

pytestmark = pytest.mark.urls(__name__)


@pytest.fixture(autouse=True)
def _shared_alone(settings: Settings) -> None:
    """What both roles have, without what a site adds."""
    settings.INVENTORY_READINESS = []
    settings.INVENTORY_STATE = ""
    settings.INVENTORY_METRICS_MODULES = ["datamodel.metrics"]


@pytest.fixture
def token(inventory: InventoryIdentity) -> Callable[..., dict[str, str]]:
    def make(*grants: Grant) -> dict[str, str]:
        secret = auth.create_api_token(name="-".join(grants) or "none", grants=frozenset(grants), now=datetime.now(UTC))
        return {"Authorization": f"Bearer {secret}"}

    return make


def test_livez_answers_without_a_database(client: Client) -> None:
    response = client.get("/livez")
    assert (response.status_code, response.content) == (200, b"alive\n")


def test_a_provisioned_inventory_is_ready(client: Client, inventory: InventoryIdentity) -> None:
    response = client.get("/readyz")
    assert response.status_code == 200
    assert response.json() == {"ready": True}


@pytest.mark.usefixtures("transactional_db")
def test_without_identity_it_is_not_ready_and_names_what_to_run(client: Client) -> None:
    response = client.get("/readyz")
    assert response.status_code == 503
    assert response["Content-Type"] == "application/problem+json"
    assert response["Retry-After"]
    problem = response.json()
    assert (problem["code"], problem["failing"]) == ("not_ready", "identity")
    assert "manage.py provision" in problem["detail"]


def test_a_restored_database_is_not_ready_until_restamped(client: Client, inventory: InventoryIdentity) -> None:
    InventoryIdentity.objects.update(timeline=99)
    assert "restamp_feed" in client.get("/readyz").json()["detail"]


def test_a_global_without_signing_key_is_not_ready(
    client: Client, inventory: InventoryIdentity, settings: Settings
) -> None:
    settings.INVENTORY_ROLE = "global"
    assert client.get("/readyz").json()["failing"] == "signing_key"


def test_missing_migrations_are_named(client: Client, inventory: InventoryIdentity) -> None:
    health._migrated.clear()
    with connection.cursor() as cursor:
        cursor.execute("SELECT max(name) FROM django_migrations WHERE app = 'datamodel'")
        newest = cursor.fetchone()
        cursor.execute("DELETE FROM django_migrations WHERE app = 'datamodel' AND name = %s", newest)
        try:
            assert client.get("/readyz").json()["failing"] == "migrations"
        finally:
            cursor.execute("INSERT INTO django_migrations (app, name, applied) VALUES ('datamodel', %s, now())", newest)


def test_checks_of_features_count_and_their_breaking_is_not_told(
    client: Client, inventory: InventoryIdentity, settings: Settings
) -> None:
    settings.INVENTORY_READINESS = [f"{__name__}.failing_check", f"{__name__}.broken_check"]
    problem = client.get("/readyz").json()
    assert problem["failing"] == "failing_check,broken_check"
    assert "the store is on fire" in problem["detail"]
    assert "never shown" not in problem["detail"]


def test_a_check_that_hangs_delays_the_answer_for_a_bounded_time_and_runs_once(
    client: Client, inventory: InventoryIdentity, settings: Settings
) -> None:
    release.clear()
    settings.INVENTORY_READINESS_SECONDS = 1
    settings.INVENTORY_READINESS = [f"{__name__}.hanging_check"]
    try:
        assert client.get("/readyz").json()["failing"] == "hanging_check"
        assert client.get("/readyz").json()["failing"] == "hanging_check"
        assert sum(thread.name == "ready-hanging_check" for thread in threading.enumerate()) == 1
    finally:
        release.set()


def test_metrics_need_a_token_with_a_fitting_grant(client: Client, token: Callable[..., dict[str, str]]) -> None:
    assert client.get("/metrics").status_code == 401
    assert client.get("/metrics", headers=token(Grant.WRITE)).status_code == 403
    assert client.get("/metrics", headers=token(Grant.HARVEST)).status_code == 200


def test_anonymous_reading_does_not_open_the_metrics_but_their_own_setting_does(
    client: Client, inventory: InventoryIdentity, settings: Settings
) -> None:
    settings.INVENTORY_ANONYMOUS_READ = True
    assert client.get("/metrics").status_code == 401
    settings.INVENTORY_METRICS_PUBLIC = True
    assert client.get("/metrics").status_code == 200


def samples(client: Client, name: str) -> dict[tuple[str, ...], float]:
    families = text_string_to_metric_families(client.get("/metrics").content.decode())
    found = [sample for family in families for sample in family.samples if sample.name == name]
    return {tuple(value for _, value in sorted(sample.labels.items())): sample.value for sample in found}


def test_requests_are_counted_by_method_status_and_reason(
    client: Client, site: StorageSite, settings: Settings
) -> None:
    settings.INVENTORY_METRICS_PUBLIC = True
    before = samples(client, "inventory_requests_total")
    client.get("/nowhere")
    client.generic("BREW", "/capabilities")
    after = samples(client, "inventory_requests_total")
    grown = {key: value - before.get(key, 0) for key, value in after.items() if value != before.get(key, 0)}
    assert grown == {("GET", "route_not_found", "4xx"): 1, ("OTHER", "none", "4xx"): 1}
    assert samples(client, "inventory_rows")["storage_site",] == 1


def test_gauges_that_fail_do_not_hide_the_others(
    client: Client, inventory: InventoryIdentity, settings: Settings
) -> None:
    settings.INVENTORY_METRICS_PUBLIC = True
    failing = ["tests.datamodel.failing_metrics", "tests.datamodel.failing_store_metrics"]
    settings.INVENTORY_METRICS_MODULES = [*failing, "datamodel.metrics"]
    failed = samples(client, "inventory_collector_failed")
    assert failed == {**{(name,): 1 for name in failing}, ("datamodel.metrics",): 0}
    assert samples(client, "inventory_rows")


def test_availability_tells_state_and_note(client: Client, inventory: InventoryIdentity) -> None:
    response = client.get("/availability")
    assert response["Content-Type"].startswith("text/xml")
    root = ET.fromstring(response.content)
    assert root.tag == f"{VOSI}availability"
    assert root.findtext(f"{VOSI}available") == "true"
    assert datetime.fromisoformat(root.findtext(f"{VOSI}upSince") or "") == health.started_at.replace(
        microsecond=health.started_at.microsecond // 1000 * 1000
    )
    assert response["X-Inventory-State"] == "ReadWrite"
    assert b"<clientip>127.0.0.1</clientip>" in response.content


def test_a_read_only_service_is_available_and_says_so(
    client: Client, inventory: InventoryIdentity, settings: Settings
) -> None:
    settings.INVENTORY_STATE = f"{__name__}.read_only"
    response = client.get("/availability")
    root = ET.fromstring(response.content)
    assert (root.findtext(f"{VOSI}available"), root.findtext(f"{VOSI}note")) == ("true", "below the mark <&>")
    heartbeat = client.get("/availability?detail=min")
    assert (heartbeat.status_code, heartbeat.content, heartbeat["X-Inventory-State"]) == (200, b"", "ReadOnly")


def test_a_service_that_is_not_ready_is_offline(
    client: Client, inventory: InventoryIdentity, settings: Settings
) -> None:
    settings.INVENTORY_READINESS = [f"{__name__}.failing_check"]
    heartbeat = client.get("/availability?detail=min")
    assert (heartbeat.status_code, heartbeat.content, heartbeat["X-Inventory-State"]) == (503, b"", "Offline")
    full = client.get("/availability")
    assert full.status_code == 200
    assert ET.fromstring(full.content).findtext(f"{VOSI}available") == "false"


def test_capabilities_name_the_services_of_the_role(client: Client, settings: Settings) -> None:
    settings.INVENTORY_PUBLIC_URL = "https://archive.example/a&b"
    root = ET.fromstring(client.get("/capabilities").content)
    found = {entry.attrib["standardID"]: entry.findtext("interface/accessURL") for entry in root.iter("capability")}
    assert found == {
        "http://www.opencadc.org/std/storage#files-1.0": "https://archive.example/a&b/files",
        "ivo://ivoa.net/std/VOSI#capabilities": "https://archive.example/a&b/capabilities",
        "ivo://ivoa.net/std/VOSI#availability": "https://archive.example/a&b/availability",
    }
    files = root.find("capability/interface")
    assert files is not None
    assert files.attrib[CAPABILITIES] == "vs:ParamHTTP"
    methods = [method.get("standardID") for method in files.iter("securityMethod")]
    assert methods[:2] == [None, "ivo://ivoa.net/sso#token"]


def test_the_landing_page_shows_counts_to_readers_only(
    client: Client, site: StorageSite, token: Callable[..., dict[str, str]], settings: Settings
) -> None:
    settings.ROOT_URLCONF = "site_service.urls"
    settings.INVENTORY_NAME = "<b>alpha</b>"
    response = client.get("/")
    assert response.status_code == 200
    assert b"&lt;b&gt;alpha" in response.content
    assert b"Artifacts known</p>" not in response.content
    assert b"Artifacts known</p>" in client.get("/", headers=token(Grant.READ)).content
    assert response["Content-Security-Policy"] == middleware.PAGE_POLICY


def test_no_page_loads_anything_from_elsewhere(client: Client, settings: Settings) -> None:
    settings.ROOT_URLCONF = "site_service.urls"
    page = client.get("/docs").content.decode()
    assert "http://" not in page
    assert "https://" not in page
    assert "<script>" not in page
    assert b"validatorUrl" in client.get("/docs?script=").content


def test_an_unknown_address_is_a_problem_for_programs_and_a_page_for_browsers(client: Client) -> None:
    assert client.get("/nowhere").json()["code"] == "route_not_found"
    page = client.get("/nowhere", headers={"Accept": "text/html,*/*"})
    assert (page.status_code, page["Content-Type"]) == (404, "text/html; charset=utf-8")


@pytest.mark.django_db
def test_an_unforeseen_failure_tells_an_id_and_nothing_else(client: Client) -> None:
    response = client.get("/broken", headers={"X-Request-ID": "abc-1"})
    assert response.status_code == 500
    assert response["X-Request-ID"] == "abc-1"
    assert "abc-1" in response.json()["detail"]
    assert b"secret reason" not in response.content


@pytest.mark.django_db
def test_a_lost_database_is_a_problem_to_be_tried_again(client: Client) -> None:
    response = client.get("/lost")
    assert (response.status_code, response.json()["code"]) == (503, "database_unavailable")
    assert response["Retry-After"]


REFUSED = [
    (SuspiciousOperation("a forged cookie"), 400, "invalid_request"),
    (PermissionDenied(), 403, "not_permitted"),
]


@pytest.mark.parametrize(("exception", "status", "code"), REFUSED)
def test_what_the_framework_refuses_is_a_problem_too(exception: Exception, status: int, code: str) -> None:
    response = views.refused(RequestFactory().get("/"), exception)
    assert (response.status_code, json.loads(response.content)["code"]) == (status, code)


def test_answers_have_a_length_and_a_sandbox_and_head_has_no_body(client: Client) -> None:
    got, head = client.get("/capabilities"), client.head("/capabilities")
    assert got["Content-Length"] == str(len(got.content)) == head["Content-Length"]
    assert head.content == b""
    assert "sandbox" in got["Content-Security-Policy"]


@pytest.mark.django_db
def test_probes_are_not_logged_but_a_file_of_that_name_is(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="inventory.http")
    client.get("/livez")
    client.get("/files/x/metrics")
    assert [record.facts["path"] for record in caplog.records] == ["/files/x/metrics"]  # type: ignore[attr-defined]


def test_a_request_id_that_could_forge_log_lines_is_replaced(client: Client) -> None:
    response = client.get("/livez", headers={"X-Request-ID": "a b=c"})
    assert response["X-Request-ID"] != "a b=c"


def test_an_operator_who_is_signed_in_may_scrape(client: Client, inventory: InventoryIdentity) -> None:
    client.force_login(get_user_model().objects.create_superuser("op"))
    assert client.get("/metrics").status_code == 200


def test_the_handler_of_last_resort_tells_nothing() -> None:
    response = views.failed(RequestFactory().get("/x"))
    assert response.status_code == 500
    assert b"/x" not in response.content
