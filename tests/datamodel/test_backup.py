"""A backup is whole or refused, and what it brings back is what was there; on either PostgreSQL."""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from django.db import connection
from pytest_django import Settings

from datamodel import archive, backup, embedded, loading, operations, sealing
from datamodel.archive import BackupError
from datamodel.embedded import EmbeddedServers
from datamodel.models import Artifact, InventoryIdentity, RemoteInventory, Restoration, StorageSite
from datamodel.uris import ArtifactUri
from tests.factories import new_content
from tests.faults import flip_bit

PROJECT = Path(__file__).parents[2]
SECRET = "for-tests-only-" + "x" * 40
OTHER_MAJOR = 16 if os.environ.get("INVENTORY_POSTGRES_MAJOR", "18") == "18" else 18
FACTS_SQL = "SELECT id::text, uri, meta_checksum, content_sha256, reaffirmed_at FROM artifact ORDER BY uri"


def put(count: int) -> None:
    for number in range(count):
        uri = ArtifactUri.parse(f"cadc:TEST/{number}\u00e4")
        operations.record_stored(uri=uri, content=new_content(b"%d" % number, content_type="a\tb\\c"))


def environment(servers: EmbeddedServers, secret: str = SECRET) -> dict[str, str]:
    """That of another process whose database is this one; the test settings have the tables of both roles."""
    return os.environ | {
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        "INVENTORY_TEST_SERVERS": str(servers.directory),
        "INVENTORY_SECRET_KEY": secret,
        "INVENTORY_STORAGE_DIR": str(servers.directory / "store"),
        "PYTHONPATH": str(PROJECT),
    }


def run(servers: EmbeddedServers, *argv: str, secret: str = SECRET) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *argv]
    return subprocess.run(command, env=environment(servers, secret), capture_output=True, text=True, check=False)


def manage(servers: EmbeddedServers, *arguments: str, secret: str = SECRET, code: int = 0) -> str:
    done = run(servers, "-m", "django", *arguments, secret=secret)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def major() -> int:
    return OTHER_MAJOR


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory, major: int) -> Iterator[EmbeddedServers]:
    """A server of the other major."""
    directory = tmp_path_factory.mktemp("other") / "servers"
    yield embedded.start(directory, durable=False, with_redis=False, postgres_major=major)
    embedded.stop(directory)


@pytest.fixture
def fresh(kept: EmbeddedServers) -> EmbeddedServers:
    """Its database, without even a schema."""
    with psycopg.connect(kept.database_url, autocommit=True) as there:
        there.execute("DROP SCHEMA public CASCADE")
        there.execute("CREATE SCHEMA public")
    return kept


@pytest.fixture
def other(kept: EmbeddedServers) -> EmbeddedServers:
    """Its database with the schema of a new inventory, and no rows."""
    with psycopg.connect(kept.database_url, autocommit=True) as there:
        names = [name for (name,) in there.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]
        if "restoration" not in names:
            manage(kept, "migrate", "--skip-checks")
            return kept
        there.execute("SET session_replication_role = replica")  # the audit refuses to be emptied
        there.execute(f"TRUNCATE {', '.join(name for name in names if name != 'django_migrations')}".encode())
    return kept


@pytest.fixture
def file(site: StorageSite, tmp_path: Path) -> Path:
    """A backup of a site with some artifacts and a sealed token."""
    put(5)
    operations.delete_artifact(uri=ArtifactUri.parse("cadc:TEST/4\u00e4"))
    RemoteInventory.objects.create(name="g", role="global", url="http://127.0.0.1:9", token=sealing.seal(b"secret"))
    path, _ = backup.write_backup(tmp_path / "file")
    return path


def rows_at(servers: EmbeddedServers, sql: str) -> list[tuple[object, ...]]:
    with psycopg.connect(servers.database_url) as there:
        return there.execute(sql.encode()).fetchall()


def test_what_is_restored_on_the_other_major_is_what_was_there_under_a_new_epoch_and_closed(
    file: Path, fresh: EmbeddedServers
) -> None:
    said = manage(fresh, "restore", str(file), "--only-load")
    assert "the feed has a new epoch and is closed" in said
    with connection.cursor() as cursor:
        cursor.execute(FACTS_SQL)
        ours = [(*row[:3], bytes(row[3]), row[4]) for row in cursor.fetchall()]
    assert [(*row[:3], bytes(row[3]), row[4]) for row in rows_at(fresh, FACTS_SQL)] == ours  # type: ignore[call-overload]  # bytea
    assert len(ours) == 4
    ((inventory_id, epoch),) = rows_at(fresh, "SELECT inventory_id, epoch FROM inventory_identity")
    identity = InventoryIdentity.objects.get()
    assert inventory_id == identity.inventory_id
    assert epoch != identity.epoch
    assert rows_at(
        fresh, "SELECT count(*) FROM artifact WHERE txid = 0 OR txid >= pg_current_xact_id()::text::bigint"
    ) == [(0,)]
    assert rows_at(fresh, "SELECT count(*) FROM retired_artifact") == [(1,)]
    assert rows_at(fresh, "SELECT step, source FROM restoration") == [("reconcile", file.name)]
    # The audit goes on after what came back, whatever ids the transactions of this cluster have.
    audit = rows_at(fresh, "SELECT action, id FROM audit_entry ORDER BY txid, id")
    assert [action for action, _ in audit] == ["put"] * 5 + ["delete", "restore"]
    assert audit == sorted(audit, key=lambda row: str(row[1]).zfill(20))
    # The next id of a table that counts.
    rows_at(
        fresh,
        "INSERT INTO remote_inventory (name, role, url, token, enabled, last_error) VALUES ('n','site','u','',true,'') RETURNING id",
    )
    assert "step 3 of 5" in manage(fresh, "restore", "--status")


def test_a_step_that_fails_is_kept_and_gone_on_with(file: Path, other: EmbeddedServers) -> None:
    manage(other, "restore", str(file), "--only-load")
    said = manage(other, "restore", "--resume", code=1)
    assert "--skip g" in said
    assert "last error: not_ready: g:" in manage(other, "restore", "--status")
    assert "no enabled peer is called h" in manage(other, "restore", "--resume", "--skip", "h", code=1)
    assert "step 3 of 5" in manage(other, "restore", "--resume", "--skip", "g", "--stop-before", "reconcile")
    # There is no store here: nothing is concluded from that.
    said = manage(other, "restore", "--resume", "--skip", "g", code=1)
    assert "no store in" in said
    assert "restoring: step 4 of 5" in manage(other, "restore", "--status")


def test_a_wrong_secret_key_is_refused_before_anything_is_made(file: Path, fresh: EmbeddedServers) -> None:
    said = manage(fresh, "restore", str(file), secret="another", code=1)
    assert "INVENTORY_SECRET_KEY" in said
    assert "fingerprint" in said
    assert rows_at(fresh, "SELECT count(*) FROM pg_class WHERE relname = 'artifact'") == [(0,)]
    assert "4" in manage(fresh, "backup", "--verify", str(file), secret="another")


def test_another_role_is_refused(file: Path, settings: Settings) -> None:
    settings.INVENTORY_ROLE = "global"
    with pytest.raises(BackupError, match="backup of a site"):
        loading.load_backup(file, replace=True, by="test", say=print)


def test_a_file_that_was_cut_anywhere_is_refused(file: Path, tmp_path: Path) -> None:
    with tarfile.open(file) as whole:
        members = whole.getmembers()
    ends = [member.offset for member in members] + [member.offset_data + member.size // 2 for member in members]
    assert len(ends) > 10
    for end in ends:
        (tmp_path / "cut").write_bytes(file.read_bytes()[:end])
        with pytest.raises(BackupError, match=r"damaged|no whole backup"):
            archive.verify(tmp_path / "cut")


def test_a_flipped_bit_in_the_rows_is_found_even_if_the_file_says_nothing(file: Path, tmp_path: Path) -> None:
    """Rewritten with right checksums of gzip and tar: only the manifest can tell."""
    changed = tmp_path / "changed"
    with tarfile.open(file) as old, tarfile.open(changed, "w") as new:
        for member in old:
            content = old.extractfile(member)
            assert content is not None
            data = content.read()
            if member.name.startswith("tables/artifact/"):
                data = gzip.compress(gzip.decompress(data).replace(b"cadc:TEST/1", b"cadc:TEST/7"))
                member.size = len(data)
            new.addfile(member, io.BytesIO(data))
    with pytest.raises(BackupError, match="the rows of artifact"):
        archive.verify(changed)


def test_a_flipped_bit_anywhere_in_a_row_piece_is_found(file: Path) -> None:
    with tarfile.open(file) as whole:
        place = next(member.offset_data + member.size // 2 for member in whole if "artifact/" in member.name)
    flip_bit(file, place)
    with pytest.raises(BackupError):
        archive.verify(file)


def test_a_damaged_file_leaves_what_the_database_holds(file: Path, other: EmbeddedServers) -> None:
    manage(other, "restore", str(file), "--only-load")
    before = rows_at(other, "SELECT epoch::text FROM inventory_identity")
    flip_bit(file, file.stat().st_size // 2)
    manage(other, "restore", str(file), "--only-load", "--replace", code=1)
    assert rows_at(other, "SELECT epoch::text FROM inventory_identity") == before


def test_a_database_that_holds_something_is_replaced_only_when_asked(file: Path, other: EmbeddedServers) -> None:
    manage(other, "restore", str(file), "--only-load")
    with psycopg.connect(other.database_url, autocommit=True) as there:
        there.execute("DELETE FROM storage_location")
    assert "--replace if they shall go" in manage(other, "restore", str(file), "--only-load", code=1)
    assert rows_at(other, "SELECT count(*) FROM storage_location") == [(0,)]
    manage(other, "restore", str(file), "--only-load", "--replace")
    assert rows_at(other, "SELECT count(*) FROM storage_location") == [(4,)]


def test_a_database_in_use_is_left_alone(file: Path, other: EmbeddedServers) -> None:
    with psycopg.connect(other.database_url, application_name="inventory-web"):
        assert "inventory-web (1). Stop the services first" in manage(other, "restore", str(file), code=1)


def test_a_load_that_dies_in_the_middle_leaves_nothing_and_is_repeated(file: Path, other: EmbeddedServers) -> None:
    """Killed while it holds its transaction open: the database forgets it."""
    manage(other, "restore", str(file), "--only-load")
    code = """
import os, signal, sys, django
django.setup()
from datamodel import loading
def die(facts, pieces):
    if facts.name == "retired_artifact":
        os.kill(os.getpid(), signal.SIGKILL)
    real(facts, pieces)
real, loading._load_table = loading._load_table, die
from pathlib import Path
loading.load_backup(Path(sys.argv[1]), replace=True, by="test", say=print)
"""
    before = rows_at(other, "SELECT epoch::text FROM inventory_identity")
    done = run(other, "-c", code, str(file))
    assert done.returncode == -9, done.stderr
    assert rows_at(other, "SELECT epoch::text FROM inventory_identity") == before
    assert rows_at(other, "SELECT count(*) FROM artifact") == [(4,)]
    manage(other, "restore", str(file), "--only-load", "--replace")


@pytest.mark.long
def test_who_dies_when_the_rows_are_back_leaves_an_entry_in_the_audit_and_the_schema_to_whoever_resumes(
    file: Path, fresh: EmbeddedServers, tmp_path: Path
) -> None:
    older = rewritten(file, tmp_path / "older", remove=["scrub", "0002_bytes_outlive_their_location"])
    code = """
import os, signal, sys, django
django.setup()
from datamodel import loading
def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
loading.call_command = die
from pathlib import Path
loading.load_backup(Path(sys.argv[1]), replace=True, by="test", say=print)
"""
    done = run(fresh, "-c", code, str(older))
    assert done.returncode == -9, done.stderr
    assert rows_at(fresh, "SELECT subject, count(*) FROM audit_entry WHERE action = 'restore' GROUP BY 1") == [
        ("older", 1)
    ]
    assert "step 3 of 5" in manage(fresh, "restore", "--resume", "--stop-before", "reconcile")
    assert rows_at(fresh, "SELECT count(*) FROM django_migrations WHERE app = 'scrub'") == [(2,)]


def test_a_backup_of_migrations_that_nobody_knows_is_refused(
    file: Path, other: EmbeddedServers, tmp_path: Path
) -> None:
    later = rewritten(file, tmp_path / "later", add=["datamodel", "9999_future"])
    said = manage(other, "restore", str(later), "--only-load", code=1)
    assert "migrations that this one does not know: datamodel.9999_future" in said


def test_a_database_of_a_newer_schema_is_refused_and_an_empty_one_is_brought_from_the_old_to_the_present(
    file: Path, fresh: EmbeddedServers, tmp_path: Path
) -> None:
    older = rewritten(file, tmp_path / "older", remove=["scrub", "0002_bytes_outlive_their_location"])
    said = manage(fresh, "restore", str(older), "--only-load")
    assert "closed" in said
    applied = "SELECT count(*) FROM django_migrations WHERE name = '0002_bytes_outlive_their_location'"
    assert rows_at(fresh, applied) == [(1,)]
    assert "of a newer schema" in manage(fresh, "restore", str(older), "--only-load", "--replace", code=1)


def rewritten(file: Path, target: Path, *, add: list[str] | None = None, remove: list[str] | None = None) -> Path:
    """The same rows with another list of migrations."""
    with tarfile.open(file) as old, target.open("wb") as raw:
        writer = archive.ArchiveWriter(raw)
        for member in old:
            content = old.extractfile(member)
            assert content is not None
            data = content.read()
            if member.name == "manifest.json":
                values = json.loads(data)
                values["migrations"] += [add] if add else []
                values["migrations"] = [name for name in values["migrations"] if name != remove]
                tables = [archive.TableFacts(**table) for table in values.pop("tables")]
                writer.finish(archive.Manifest(**values, tables=tables))
                return target
            writer._add(member.name, data)
    raise AssertionError


def test_a_backup_never_overwrites_and_leaves_nothing_when_it_fails(file: Path) -> None:
    content = file.read_bytes()
    with pytest.raises(BackupError, match="never overwrites"):
        backup.write_backup(file)
    assert file.read_bytes() == content
    assert sorted(path.name for path in file.parent.iterdir() if path.is_file()) == ["file"]
    with pytest.raises(BackupError, match="No such file"):
        backup.write_backup(file.parent / "missing" / "file")
    assert file.stat().st_mode & 0o077 == 0


def test_a_directory_gets_a_new_file_each_time_and_gives_the_newest(site: StorageSite, tmp_path: Path) -> None:
    first, _ = backup.write_backup(tmp_path)
    second, _ = backup.write_backup(tmp_path)
    assert first != second
    assert backup.chosen_file(tmp_path) == second


def test_a_backup_is_of_one_moment_and_does_not_hold_back_the_feed(site: StorageSite, tmp_path: Path) -> None:
    put(2)
    _, manifest = backup.write_backup(tmp_path / "file")
    assert {table.name: table.rows for table in manifest.tables}["artifact"] == Artifact.objects.count() == 2
    assert not Restoration.objects.exists()


@pytest.mark.timeout(120)
def test_a_hundred_thousand_rows_travel_in_flat_memory(
    site: StorageSite, other: EmbeddedServers, tmp_path: Path
) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            """INSERT INTO artifact (id, uri, uri_bucket, content_checksum, content_last_modified, content_length, last_modified,
                meta_checksum, meta_modified_at, txid)
            SELECT gen_random_uuid(), 'cadc:MANY/' || n, '00000', 'md5:' || md5(n::text), now(), 1, now(), 'md5:' || md5(n::text),
                now(), 0 FROM generate_series(1, 100000) n"""
        )
    path, manifest = backup.write_backup(tmp_path / "file")
    assert manifest.rows > 100_000
    code = """
import resource, sys, django
from pathlib import Path
django.setup()
from datamodel import archive, loading
path = Path(sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
loading.load_backup(path, replace=False, by="test", say=lambda text: None)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = run(other, "-c", code, str(path))
    assert done.returncode == 0, done.stderr
    # The text of the rows is some twenty megabytes; loading the migrations takes about as much as this limit.
    assert sum(table.size for table in manifest.tables) > 15_000_000
    assert int(done.stdout) < 60_000
    assert rows_at(other, "SELECT count(*) FROM artifact") == [(100_000,)]
