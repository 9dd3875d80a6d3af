"""Who this inventory is: made once, renewed after a restore; positions and cursors; system checks."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from django.core import checks as django_checks
from django.core.management import CommandError, call_command
from django.db import connection
from hypothesis import given, strategies as st
from pytest_django import Settings

from datamodel import checks, embedded, identity, operations, positions
from datamodel.embedded import EmbeddedServers
from datamodel.errors import InvalidRequestError, NotConfiguredError, NotPermittedError
from datamodel.models import Artifact, InventoryIdentity, StorageSite
from datamodel.positions import Cursor, Position
from datamodel.uris import ArtifactUri
from tests.factories import new_content

PROJECT = Path(__file__).parents[2]
URI = ArtifactUri.parse("cadc:TEST/a")


def test_the_identity_is_made_once(inventory: InventoryIdentity) -> None:
    again = identity.ensure_identity()
    assert (again.inventory_id, again.epoch) == (inventory.inventory_id, inventory.epoch)
    assert positions.read_identity().inventory_id == inventory.inventory_id
    assert positions.read_identity().is_current


@pytest.mark.usefixtures("transactional_db")
def test_without_identity_it_says_what_to_run() -> None:
    with pytest.raises(NotConfiguredError, match="provision"):
        positions.read_identity()


@pytest.mark.parametrize("change", [{"epoch": uuid.uuid4()}, {"timeline": 99}, {"system_identifier": 1}])
def test_what_was_stamped_elsewhere_is_seen(inventory: InventoryIdentity, change: dict[str, object]) -> None:
    before = positions.read_identity()
    InventoryIdentity.objects.update(**change)
    after = positions.read_identity()
    assert after.is_current is ("epoch" in change)
    assert (after.epoch != before.epoch) is ("epoch" in change)


def test_describing_the_site_again_changes_nothing_not_even_its_place_in_the_feed(site: StorageSite) -> None:
    again = identity.ensure_site(resource_id=site.resource_id)
    assert (again.txid, again.last_modified) == (site.txid, site.last_modified)
    changed = identity.ensure_site(resource_id=site.resource_id, allow_write=False)
    assert changed.txid > site.txid
    assert changed.last_modified > site.last_modified
    assert changed.id == site.id


def test_only_the_own_site_is_switched(site: StorageSite) -> None:
    other = StorageSite.objects.create(
        resource_id="ivo://other", name="o", last_modified=site.last_modified, meta_checksum="md5:x"
    )
    with pytest.raises(NotPermittedError, match="describes itself"):
        identity.switch_site(site_id=other.id, allow_read=False, allow_write=False)


def test_restamping_gives_every_row_a_new_place_and_a_new_epoch(site: StorageSite) -> None:
    operations.record_stored(uri=URI, content=new_content(b"1"))
    operations.record_stored(uri=URI, content=new_content(b"2"))
    before, txid = positions.read_identity(), Artifact.objects.get().txid
    # One site, one artifact, one tombstone of the replaced one.
    assert identity.restamp_feed() == 3
    after = positions.read_identity()
    assert after.epoch != before.epoch
    assert after.inventory_id == before.inventory_id
    assert Artifact.objects.get().txid > txid


# --- a restore into another cluster


@pytest.fixture
def other(tmp_path: Path) -> Iterator[EmbeddedServers]:
    servers = embedded.start(tmp_path / "other", with_redis=False)
    yield servers
    embedded.stop(servers.directory)


def manage(servers: EmbeddedServers, *argv: str) -> subprocess.CompletedProcess[str]:
    environment = {"INVENTORY_ROLE": "site", "DATABASE_URL": servers.database_url, "INVENTORY_SECRET_KEY": "k" * 60}
    return subprocess.run(
        [sys.executable, "manage.py", *argv],
        cwd=PROJECT,
        env={name: value for name, value in os.environ.items() if name in {"PATH", "HOME", "TMPDIR"}} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def rows_in_feed(servers: EmbeddedServers) -> int:
    with psycopg.connect(servers.database_url) as there:
        row = there.execute(f"SELECT count(*) FROM artifact WHERE txid < {positions.HORIZON_SQL}").fetchone()
    return int(row[0]) if row else 0


def test_after_a_restore_a_check_demands_restamping_and_restamping_serves_every_row(
    servers: EmbeddedServers, other: EmbeddedServers, site: StorageSite, tmp_path: Path
) -> None:
    operations.record_stored(uri=URI, content=new_content())
    with connection.cursor() as cursor:
        # As in a cluster that has lived longer than the one it is restored into.
        cursor.execute("ALTER TABLE artifact DISABLE TRIGGER USER")
        cursor.execute("UPDATE artifact SET txid = txid + 1000000")
        cursor.execute("ALTER TABLE artifact ENABLE TRIGGER USER")
    tested = replace(
        servers, database_url=servers.database_url.replace("/inventory?", f"/{connection.settings_dict['NAME']}?")
    )
    embedded.dump_database(tested, tmp_path / "dump")
    embedded.restore_database(other, tmp_path / "dump")
    assert rows_in_feed(other) == 0
    refused = manage(other, "check", "--database", "default")
    assert refused.returncode != 0
    assert "inventory.E008" in refused.stderr
    assert "restamp_feed" in refused.stderr
    restamped = manage(other, "restamp_feed")
    assert restamped.returncode == 0, restamped.stderr
    assert "2 rows restamped" in restamped.stdout
    accepted = manage(other, "check", "--database", "default")
    assert accepted.returncode == 0, accepted.stderr
    assert rows_in_feed(other) == 1


# --- positions and cursors


@given(st.text("0123456789abcdef", min_size=16, max_size=16), st.integers(0, 2**63 - 1), st.uuids())
def test_cursors_and_positions_survive_their_text(epoch: str, txid: int, identifier: uuid.UUID) -> None:
    cursor, position = Cursor(epoch, txid, identifier), Position(identifier, epoch, txid)
    assert Cursor.parse(str(cursor)) == cursor
    assert Position.parse(str(position)) == position


# Fixed: each process must collect tests of the same names.
SOME_ID = uuid.UUID(int=1)
NONSENSE = [
    "",
    "x",
    "a.b.c",
    f"{'a' * 16}.-1.{SOME_ID}",
    f"{'a' * 16}.{'9' * 20}.{SOME_ID}",
    f"{'a' * 16}.1.x\n",
]
NONSENSE += [f"{'a' * 16}.1.{'-' * 36}", f"{'-' * 36}.{'a' * 16}.1", f"{'a' * 16}.{2**63}.{SOME_ID}"]


@pytest.mark.parametrize("text", NONSENSE)
def test_a_malformed_cursor_or_position_is_the_callers_mistake(text: str) -> None:
    with pytest.raises(InvalidRequestError, match="invalid cursor"):
        Cursor.parse(text)
    with pytest.raises(InvalidRequestError, match="invalid x-inventory-position"):
        Position.parse(text)


def test_the_cursor_below_a_horizon_is_after_every_row_below_it() -> None:
    below = Cursor.below("e", 10)
    assert (below.txid, below.row_id.int) == (9, 2**128 - 1)
    assert Cursor.before_all("e") == Cursor("e", 0, uuid.UUID(int=0))


def test_the_position_of_a_write_names_its_transaction(inventory: InventoryIdentity) -> None:
    recorded = operations.record_stored(uri=URI, content=new_content())
    position = positions.position_of(recorded.txid)
    assert (position.inventory_id, position.txid) == (inventory.inventory_id, Artifact.objects.get().txid)
    assert position.epoch == positions.read_identity().epoch


# --- system checks


def found(check: object, **options: object) -> list[str]:
    return [str(message.id) for message in check(app_configs=None, **options)]  # type: ignore[operator]


CONTRADICTIONS = [
    ({"TIME_ZONE": "America/Vancouver"}, "inventory.E001"),
    ({"INVENTORY_CONTENT_ALGORITHM": "crc32"}, "inventory.E002"),
    ({"INVENTORY_PUBLIC_URL": "ftp://x"}, "inventory.E003"),
    ({"INVENTORY_TRUSTED_PROXIES": ["10.0.0.1/8"]}, "inventory.E030"),
    ({"INVENTORY_CLIENT_CERTIFICATE_HEADER": "X-Client-DN"}, "inventory.E031"),
    ({"INVENTORY_PERMISSION_SERVICES": ["ftp://x"]}, "inventory.E032"),
    ({"INVENTORY_LOGIN_GROUPS": []}, "inventory.E033"),
    ({"INVENTORY_PERMISSION_GROUPS": "[]"}, "inventory.E032"),
]


@pytest.mark.parametrize(("change", "identifier"), CONTRADICTIONS)
def test_contradicting_settings_are_refused(settings: Settings, change: dict[str, str], identifier: str) -> None:
    assert found(checks.check_settings) == []
    for name, value in change.items():
        setattr(settings, name, value)
    assert found(checks.check_settings) == [identifier]


def test_a_global_has_no_store_and_a_site_has_one(settings: Settings) -> None:
    assert found(checks.check_role) == []
    settings.INVENTORY_ROLE = "global"
    assert found(checks.check_role) == ["inventory.E005"]
    settings.STORAGES = {name: value for name, value in settings.STORAGES.items() if name != "artifacts"}
    assert found(checks.check_role) == []
    settings.INVENTORY_ROLE = "site"
    assert found(checks.check_role) == ["inventory.E006"]


def test_the_feed_is_checked_only_where_a_database_is_asked_for(inventory: InventoryIdentity) -> None:
    InventoryIdentity.objects.update(timeline=99)
    assert found(checks.check_feed) == []
    assert found(checks.check_feed, databases=["default"]) == ["inventory.E008"]
    InventoryIdentity.objects.all().delete()
    assert found(checks.check_feed, databases=["default"]) == ["inventory.E009"]


@pytest.mark.usefixtures("inventory")
def test_a_database_that_forgets_is_refused(settings: Settings) -> None:
    """As the servers of the tests do."""
    assert found(checks.check_feed, databases=["default"]) == []
    settings.INVENTORY_ALLOW_UNSAFE_DATABASE = False
    assert found(checks.check_feed, databases=["default"]) == ["inventory.E011"]
    words = (
        "loses acknowledged files when its machine stops: fsync, full_page_writes, synchronous_commit must not be off"
    )
    assert words in checks.forgetfulness()
    with pytest.raises(CommandError, match="loses acknowledged files"):
        call_command("provision", "--no-migrate")


def test_the_checks_are_registered() -> None:
    registered = django_checks.registry.registry.registered_checks
    assert {checks.check_settings, checks.check_role} <= set(registered)
