"""Names, reasons and all else that somebody else writes is text on every page, never an element, an attribute or a link of ours."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from datetime import UTC, date, datetime
from html.parser import HTMLParser
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.contrib.contenttypes.models import ContentType
from django.db import connection, connections, models
from django.http.response import HttpResponseBase
from django.test import Client
from django.urls import reverse
from pytest_django import Settings

from datamodel.access import forget
from datamodel.auth import create_api_token
from datamodel.grants import Grant
from datamodel.middleware import PAGE_POLICY
from datamodel.models import Artifact, InventoryIdentity, NamespaceGrant, RemoteInventory, StorageLocation

NOW = datetime(2026, 11, 21, tzinfo=UTC)
MARK = "x55"
# As the start of a link, the end of an attribute, an element; written in three ways; with what turns text round and cannot be seen.
HOSTILE = (
    "javascript:x55//\"'><x55 onx55=x55><script>x55()</script><img src=x onerror=x55()>"
    "</pre></td></textarea></title><x55>&lt;x55&gt;%3Cx55%3E%22onx55=x55 \u202e\u2066x55\u2069\x07\x1b\x7f\u2028"
)
SHORT = "\"'><x55 a=x55>"
LINKS = {"href", "src", "action", "formaction", "poster", "data", "content", "srcdoc", "xlink:href"}
# Words that the code reads, and things that a page does not open with otherwise.
WORDS: dict[str, dict[str, Any]] = {
    # An index counts with its digits.
    "datamodel.artifact": {"uri_bucket": "00000"},
    "datamodel.apitoken": {"grants": ["read"], "revoked_at": None, "expires_at": None},
    "datamodel.roleassignment": {"role": "auditor"},
    "auth.user": {"is_superuser": False},
}


class Page(HTMLParser):
    """What a browser would make of it, as far as it was not ours to be made."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.wrong: list[str] = []
        self.elements = 0
        self.text = ""
        self._script = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements += 1
        self._script = tag == "script"
        if not re.fullmatch(r"[a-z][a-z0-9]*", tag) or MARK in tag:
            self.wrong.append(f"the element {tag}")
        if self._script and "src" not in dict(attrs):
            self.wrong.append("a script of its own")
        for name, value in attrs:
            if MARK in name or name.startswith("on") or name == "style" or not re.fullmatch(r"[a-z:-]+[0-9]?", name):
                self.wrong.append(f"{tag} with the attribute {name}")
            if name in LINKS and not is_ours(value or ""):
                self.wrong.append(f"{tag} leads to {value}")

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._script and data.strip():
            self.wrong.append(f"a script: {data}")

    def handle_endtag(self, tag: str) -> None:
        self._script = False

    def handle_comment(self, data: str) -> None:
        if MARK in data:
            self.wrong.append(f"the comment {data}")


def is_ours(link: str) -> bool:
    """As browsers read it, which leave out what cannot be seen."""
    seen = "".join(letter for letter in link if letter > " ")
    return seen == "data:," or (
        urlsplit(seen).scheme in {"", "http", "https"} and not seen.startswith(("//", "\\", "/\\"))
    )


def test_the_reader_of_pages_sees_what_would_run() -> None:
    for text in (
        HOSTILE,
        f'<a title="{HOSTILE}">',
        f"<a title='{HOSTILE}'>",
        f'<a href="{HOSTILE[:16]}">',
        '<a href=" java\tscript:x">',
        '<a href="//evil.example/">',
        "<script>1</script>",
        "<p onclick=1>",
        "<x55>",
    ):
        assert Page(text).wrong, text
    assert not Page('<a class="x" href="./javascript:x55">&lt;x55&gt;</a><script src="/static/a.js"></script>').wrong


def value_of(field: models.Field[Any, Any]) -> Any:
    """The worst that a column holds."""
    if field.choices:
        return field.choices[0][0]
    match field.get_internal_type():
        case "CharField" | "TextField" | "EmailField":
            is_long = field.max_length is None or field.max_length >= len(HOSTILE)
            return HOSTILE if is_long else SHORT[: field.max_length]
        case "ArrayField":
            return [HOSTILE]
        case "JSONField":
            return {HOSTILE: [HOSTILE], "uris": [HOSTILE]}
        case "DateTimeField":
            return NOW
        case "DateField":
            return date(2026, 11, 21)
        case "UUIDField":
            return uuid.uuid4()
        case "BinaryField":
            return bytes(32)
        case "BooleanField":
            return True
        case "FloatField":
            return 1.0
    return 1


def fill(model: type[models.Model]) -> models.Model:
    """A row of it, and first of what it names; the one that is there."""
    if (known := model._default_manager.first()) is not None:
        return known
    values: dict[str, Any] = {}
    for field in model._meta.concrete_fields:
        if isinstance(field, models.ForeignKey):
            target = field.related_model
            if target is not model and isinstance(target, type):
                values[field.attname] = getattr(fill(target), field.target_field.attname)
        elif not isinstance(field, models.AutoField | models.GeneratedField):
            values[field.attname] = value_of(field)
    values |= WORDS.get(model._meta.label_lower, {})
    (made,) = model._default_manager.bulk_create([model(**values)])
    return made


def shown() -> list[type[models.Model]]:
    admin.autodiscover()
    return sorted(admin.site._registry, key=lambda model: model._meta.label)


@pytest.fixture
def unguarded(db: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Until the end of the test the database takes anything: pages must not depend on what it refuses otherwise."""
    # All of it is one transaction, which is undone; views give their connection back.
    monkeypatch.setattr(connections["default"], "close", lambda: None)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT format('ALTER TABLE %I DROP CONSTRAINT %I', conrelid::regclass, conname) FROM pg_constraint "
            "WHERE contype IN ('c', 'f') AND connamespace = 'public'::regnamespace"
        )
        for (statement,) in cursor.fetchall():
            cursor.execute(statement)
    forget()
    yield
    forget()
    ContentType.objects.clear_cache()


@pytest.fixture
def operator(client: Client, unguarded: None, monkeypatch: pytest.MonkeyPatch) -> Client:
    # The same on each page, and most of its time.
    monkeypatch.setattr(admin.site, "enable_nav_sidebar", False)
    client.force_login(get_user_model().objects.create_superuser(SHORT))
    return client


def page_of(response: HttpResponseBase) -> Page:
    assert response.status_code == 200, response.headers
    assert response["Content-Type"].startswith("text/html")
    assert response["X-Content-Type-Options"] == "nosniff"
    content = b"".join(response) if response.streaming else response.content  # type: ignore[attr-defined]
    page = Page(content.decode())
    assert page.wrong == []
    assert page.elements >= 5
    return page


def test_every_page_of_the_admin_shows_what_is_hostile_as_text(operator: Client) -> None:
    seen = 0
    for model in shown():
        row, name = fill(model), f"admin:{model._meta.app_label}_{model._meta.model_name}"
        listed = operator.get(reverse(f"{name}_changelist"), {"q": HOSTILE} if seen == 0 else {})
        changed = operator.get(reverse(f"{name}_change", args=[row.pk]))
        for response in (listed, changed):
            page = page_of(response)
            assert response["Content-Security-Policy"] == PAGE_POLICY
            seen += MARK in page.text
    assert len(shown()) > 45
    # It was there, and whole enough to be seen.
    assert seen > 75


def test_pages_about_rows_show_what_is_hostile_as_text(operator: Client) -> None:
    remote, grant = fill(RemoteInventory), fill(NamespaceGrant)
    place = reverse("admin:datamodel_remoteinventory_changelist")
    asked = {"caller": HOSTILE, "operation": "read", "uri": "cadc:x"}
    responses = [
        operator.post(place, {"action": "revoke", "_selected_action": [remote.pk]}),
        operator.post(place, {"action": "delete_selected", "_selected_action": [remote.pk]}),
        operator.get(reverse("admin:datamodel_remoteinventory_delete", args=[remote.pk])),
        operator.get(reverse("admin:datamodel_namespacegrant_history", args=[grant.pk])),
        operator.get(reverse("admin:datamodel_namespacegrant_explain"), asked),
        operator.get(reverse("admin:datamodel_namespacegrant_explain"), asked | {"caller": f"user:{SHORT}"}),
        operator.get("/admin/"),
        Client().get("/admin/login/", {"next": HOSTILE}),
        Client().post("/admin/login/", {"username": HOSTILE, "password": "x", "next": HOSTILE}),
    ]
    for response in responses:
        page = page_of(response)
        assert response["Content-Security-Policy"] == PAGE_POLICY
    assert [MARK in page_of(response).text for response in responses[:7]] == [True] * 7
    assert page


def stored(uri: str) -> str:
    artifact = fill(Artifact)
    Artifact.objects.filter(pk=artifact.pk).update(uri=uri)
    StorageLocation.objects.get_or_create(artifact_id=artifact.pk, defaults={"stored_at": NOW})
    return uri


NAMES = [
    HOSTILE.encode("ascii", "ignore").decode().translate(dict.fromkeys([*range(33), 127])),
    "%3Cx55%3E%22%27onx55=x55",
    "..\\..//x55",
    "%E2%80%AEgpj.x55%E2%81%A6%1B%07",
    "x55%0D%0ASet-Cookie:%20x55",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_listing_leads_to_names_as_they_are_and_runs_nothing(
    unguarded: None, client: Client, settings: Settings, name: str
) -> None:
    settings.INVENTORY_ANONYMOUS_READ = True
    stored(f"cadc:A/{name}")
    for path in ("/files/", "/files/cadc:", "/files/cadc:A/"):
        response = client.get(path, headers={"accept": "text/html"})
        page = page_of(response)
        # Nothing that cannot be seen, or turns round what can: the name that is shown is the name.
        assert page.text.replace("\n", "").isprintable()
        policy = response["Content-Security-Policy"]
        assert "sandbox" in policy
        assert "default-src 'none'" in policy
        assert "allow-" not in policy
    assert MARK in page.text or ".." in page.text


@pytest.mark.parametrize("role", ["site", "global"])
def test_no_other_door_answers_a_browser_with_html_that_somebody_else_wrote(
    unguarded: None, client: Client, settings: Settings, role: str
) -> None:
    settings.INVENTORY_ROLE, settings.ROOT_URLCONF = (
        role,
        f"{'site_service' if role == 'site' else 'global_inventory'}.urls",
    )
    settings.INVENTORY_ANONYMOUS_READ = True
    stored(f"cadc:A/{NAMES[0]}")
    hostile = quote(HOSTILE)
    browser = {"accept": "text/html,application/xhtml+xml"}
    answered = 0
    for path in (
        f"/{hostile}",
        f"/files/{hostile}",
        f"/files/cadc:A/{hostile}",
        f"/artifacts?namespace={hostile}",
        f"/artifacts?uri={hostile}",
        f"/explain?uri={hostile}",
        f"/harvest/{hostile}",
        f"/permissions/explain?caller={hostile}&uri={hostile}",
        "/artifacts?namespace=cadc:A/",
    ):
        response = client.get(path, headers=browser)
        policy = response["Content-Security-Policy"]
        assert "script-src" not in policy
        assert "sandbox" in policy or policy == PAGE_POLICY
        assert response["X-Content-Type-Options"] == "nosniff"
        if response["Content-Type"].startswith("text/html"):
            assert Page(response.content.decode()).wrong == [], path
            assert MARK not in response.content.decode()
        answered += 1
    assert answered == 9


@pytest.mark.parametrize("role", ["site", "global"])
def test_the_landing_page_shows_a_hostile_caller_as_text(
    inventory: InventoryIdentity, client: Client, settings: Settings, role: str
) -> None:
    settings.INVENTORY_ROLE = role
    token = create_api_token(name=SHORT, grants=frozenset({Grant.READ}), now=NOW)
    response = client.get("/", headers={"authorization": f"Bearer {token}"})
    assert SHORT in page_of(response).text
    assert response["Content-Security-Policy"] == PAGE_POLICY
