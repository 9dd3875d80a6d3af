"""Our own pages in a browser: what they may run, who may frame them, where a login leads, what the request calls us."""

from __future__ import annotations

import pytest
from django.contrib.auth import get_user_model
from django.test import Client

from datamodel.models import InventoryIdentity


@pytest.mark.parametrize("path", ["/admin/login/", "/", "/docs"])
def test_pages_run_no_inline_script_are_not_framed_and_name_us_nowhere(inventory: InventoryIdentity, path: str) -> None:
    answer = Client().get(path)
    assert answer.status_code == 200
    rules = dict(rule.strip().split(" ", 1) for rule in answer["Content-Security-Policy"].split(";"))
    assert rules["default-src"] == "'self'"
    assert rules["frame-ancestors"] == rules["object-src"] == rules["base-uri"] == "'none'"
    assert "script-src" not in rules
    # Swagger UI cannot do without; its page shows nothing that a caller has made.
    assert ("style-src" in rules) == (path == "/docs")
    assert b"<style" not in answer.content or path == "/docs"
    assert answer["X-Frame-Options"] == "DENY"
    assert answer["X-Content-Type-Options"] == "nosniff"
    assert answer["Referrer-Policy"] == "same-origin"


@pytest.mark.parametrize(
    "following", ["//evil.example/", "https://evil.example/", "/\\evil.example", "javascript:alert(1)"]
)
def test_a_login_leads_to_no_other_place(inventory: InventoryIdentity, following: str) -> None:
    get_user_model().objects.create_superuser("admin", password="right")
    wanted = {"username": "admin", "password": "right", "next": following}
    answer = Client().post("/admin/login/", wanted, headers={"host": "localhost", "x-forwarded-host": "evil.example"})
    assert answer.status_code == 302
    assert "evil" not in answer["Location"]
    assert answer["Location"].startswith("/")
    assert answer.cookies["inventory_session"]["httponly"]
    assert answer.cookies["inventory_session"]["samesite"] == "Lax"
    assert answer.cookies["inventory_session"]["max-age"] == 12 * 3600


def test_a_method_that_a_public_door_does_not_know_is_405_and_no_page(inventory: InventoryIdentity) -> None:
    client = Client(enforce_csrf_checks=True)
    for path in ("/livez", "/readyz", "/pubkey", "/capabilities", "/availability", "/metrics", "/"):
        for method in ("POST", "DELETE", "QUERY"):
            assert client.generic(method, path).status_code == 405, (method, path)


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1:1@evil.example", "a b", ""])
def test_what_a_request_calls_us_is_in_no_answer(inventory: InventoryIdentity, host: str) -> None:
    for path in ("/", "/capabilities", "/schema", "/docs", "/admin/", "/nothing"):
        answer = Client().get(path, headers={"host": host, "x-forwarded-host": "evil.example"})
        assert answer.status_code < 500
        assert b"evil" not in answer.content
        assert "evil" not in answer.get("Location", "")
