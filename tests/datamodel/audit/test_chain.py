"""Recording with the operation, the append-only tables, the sealer and the check of the chain."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connection, transaction

from datamodel import direct, identity, keys, operations
from datamodel.audit import acting, archiving, chain, queries, verification
from datamodel.audit.acting import Acting, Actor
from datamodel.audit.models import AuditArchive, AuditEntry, AuditHead, AuditSeal
from datamodel.audit.recording import record
from datamodel.audit.rules import Action, Outcome
from datamodel.errors import ArtifactNotFoundError
from datamodel.rows import database_now
from datamodel.uris import ArtifactUri
from tests.factories import new_content

pytestmark = pytest.mark.usefixtures("inventory")

URI = ArtifactUri.parse("cadc:TEST/file.fits")


def write(*subjects: str) -> None:
    """One entry per transaction."""
    for subject in subjects:
        record(Action.PUT, subject)


def tamper(sql: str, *parameters: int) -> None:
    """As the owner of the database could: with the triggers off."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL session_replication_role = replica")
        cursor.execute(sql, parameters)
        assert cursor.rowcount


def sealed_subjects() -> list[str]:
    return [entry.subject for _, entries in queries.sealed_batches(queries.start()) for entry in entries]


def test_each_write_of_a_caller_is_recorded_with_who_did_it() -> None:
    with acting.on_behalf_of(Acting(actor=Actor("pipeline", "api-token", "192.0.2.7"))):
        first = operations.record_stored(uri=URI, content=new_content(b"one"))
        operations.record_stored(uri=URI, content=new_content(b"one"))
        second = operations.record_stored(uri=URI, content=new_content(b"two"))
        operations.update_artifact(uri=URI, content_type="image/fits", content_encoding=None)
        operations.delete_artifact(uri=URI)
        operations.undelete_artifact(retired_id=second.artifact.id)
    entries = list(AuditEntry.objects.order_by("id"))
    assert [entry.action for entry in entries] == ["put", "put", "put", "metadata", "delete", "undelete"]
    assert {(entry.who, entry.method, entry.address, entry.subject) for entry in entries} == {
        ("pipeline", "api-token", "192.0.2.7", URI.value)
    }
    assert [entry.details.get("meaning") for entry in entries[:3]] == ["created", "reaffirmed", "replaced"]
    assert entries[2].details["replaced"] == str(first.artifact.id)
    assert entries[0].txid == first.txid


def test_an_operation_that_fails_leaves_no_entry() -> None:
    with pytest.raises(ArtifactNotFoundError):
        operations.delete_artifact(uri=URI)
    with pytest.raises(RuntimeError), transaction.atomic():
        operations.record_stored(uri=URI, content=new_content(b"one"))
        raise RuntimeError
    assert not AuditEntry.objects.exists()


def test_changing_metadata_to_what_it_is_leaves_no_entry() -> None:
    operations.record_stored(uri=URI, content=new_content(b"one", content_type="a/b"))
    operations.update_artifact(uri=URI, content_type="a/b", content_encoding=None)
    assert AuditEntry.objects.count() == 1


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_entry SET who = 'nobody'",
        "DELETE FROM audit_entry",
        "TRUNCATE audit_entry",
        "UPDATE audit_seal SET entries = 0",
        "DELETE FROM audit_seal",
        "TRUNCATE audit_seal",
        "SET LOCAL inventory.audit_archiving = 'on'; DELETE FROM audit_entry",
        "SET LOCAL inventory.audit_archiving = 'on'; DELETE FROM audit_seal",
    ],
)
def test_the_database_refuses_to_change_or_remove_what_was_recorded(statement: str) -> None:
    write("a:1")
    chain.seal_ready()
    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement)
    assert AuditEntry.objects.count() == AuditSeal.objects.count() == 1


def test_stamps_are_the_databases_whatever_the_writer_says() -> None:
    AuditEntry.objects.create(txid=1, at=datetime(2000, 1, 1, tzinfo=UTC), action="put", subject="a:1", outcome="done")
    entry = AuditEntry.objects.get()
    assert entry.txid > 1
    assert entry.at > datetime(2020, 1, 1, tzinfo=UTC)


def test_entries_are_sealed_once_in_order_and_the_chain_is_whole() -> None:
    write("a:1", "a:2")
    assert chain.seal_ready() == 2
    assert chain.seal_ready() == 0
    write("a:3")
    assert chain.seal_ready() == 1
    assert sealed_subjects() == ["a:1", "a:2", "a:3"]
    report = verification.verify()
    assert (report.wrong, report.entries, report.seals, report.unsealed) == (None, 3, 2, 0)


def test_an_empty_chain_is_whole() -> None:
    report = verification.verify()
    assert (report.wrong, report.entries, report.digest) == (None, 0, "00" * 32)


def test_a_transaction_that_began_earlier_and_commits_later_is_not_passed_over() -> None:
    with direct.connect("test") as late:
        late.autocommit = False
        late.execute("SELECT pg_current_xact_id()")
        write("a:early-bird")
        assert chain.seal_ready() == 0
        late.execute(
            "INSERT INTO audit_entry (who, method, address, action, subject, outcome, reason, request_id, count, details) "
            "VALUES ('late', '', '', 'put', 'a:late', 'done', '', '', 1, '{}')"
        )
        late.commit()
    assert chain.seal_ready() == 2
    # In order of transactions, not of ids or commits.
    assert sealed_subjects() == ["a:late", "a:early-bird"]
    assert verification.verify().wrong is None


def test_of_two_sealers_one_works_and_the_other_does_nothing() -> None:
    write("a:1")
    with direct.connect("test") as other:
        other.autocommit = False
        other.execute("SELECT pg_advisory_xact_lock(%s)", [chain._LOCK])
        assert chain.seal_ready() == 0
        other.rollback()
    assert chain.seal_ready() == 1


def test_sealers_and_writers_at_once_make_one_whole_chain() -> None:
    def work(name: str) -> None:
        try:
            for number in range(20):
                write(f"a:{name}/{number}")
                chain.seal_ready()
        finally:
            connection.close()

    threads = [threading.Thread(target=work, args=(str(number),)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    chain.seal_ready()
    report = verification.verify()
    assert (report.wrong, report.entries, report.unsealed) == (None, 80, 0)


def test_a_crash_while_sealing_leaves_nothing_half_done(monkeypatch: pytest.MonkeyPatch) -> None:
    write("a:1")
    with pytest.raises(KeyboardInterrupt), transaction.atomic():
        chain.seal_ready()
        raise KeyboardInterrupt
    assert not AuditSeal.objects.exists()
    assert chain.seal_ready() == 1
    assert verification.verify().wrong is None


TAMPERINGS = {
    "changed": ("UPDATE audit_entry SET who = 'nobody' WHERE subject = 'a:3'", "a:3", "was changed"),
    "details": ("""UPDATE audit_entry SET details = '{"x": 1}' WHERE subject = 'a:3'""", "a:3", "was changed"),
    "removed": ("DELETE FROM audit_entry WHERE subject = 'a:3'", "a:3", "is missing"),
    "inserted": (
        """
        INSERT INTO audit_entry (txid, at, who, method, address, action, subject, outcome, reason, request_id, count, details)
        SELECT txid, at, 'x', '', '', 'put', 'a:new', 'done', '', '', 1, '{}' FROM audit_entry WHERE subject = 'a:3'
        """,
        "a:new",
        "was not there when this was sealed",
    ),
}


@pytest.mark.parametrize("how", TAMPERINGS)
def test_the_check_names_the_first_entry_that_is_not_as_it_was(how: str) -> None:
    write("a:1", "a:2")
    chain.seal_ready()
    write("a:3", "a:4", "a:5")
    chain.seal_ready()
    ids = dict(AuditEntry.objects.values_list("subject", "id"))
    statement, subject, words = TAMPERINGS[how]
    tamper(statement)
    ids |= dict(AuditEntry.objects.values_list("subject", "id"))
    wrong = verification.verify().wrong
    assert wrong is not None
    assert (wrong.seal, wrong.entry) == (2, ids[subject])
    assert words in wrong.text


SEAL_TAMPERINGS = {
    "digest": "UPDATE audit_seal SET digest = previous WHERE number = 2",
    "previous": "UPDATE audit_seal SET previous = digest WHERE number = 2",
    "removed": "DELETE FROM audit_seal WHERE number = 2",
    "count": "UPDATE audit_seal SET entries = 7 WHERE number = 2",
}


@pytest.mark.parametrize("how", SEAL_TAMPERINGS)
def test_a_seal_that_was_changed_or_removed_is_found(how: str) -> None:
    for subject in ("a:1", "a:2", "a:3"):
        write(subject)
        chain.seal_ready()
    tamper(SEAL_TAMPERINGS[how])
    wrong = verification.verify().wrong
    assert wrong is not None
    assert wrong.seal == 2


def test_an_end_that_was_cut_off_is_found_by_the_signed_head() -> None:
    keys.create_key_pair(now=datetime.now(UTC), active_from=datetime.now(UTC))
    write("a:1")
    chain.seal_ready()
    write("a:2")
    chain.seal_ready()
    head = chain.sign_head()
    assert head is not None
    assert verification.verify().heads == 1
    tamper("DELETE FROM audit_seal WHERE number = %s", head.seal)
    tamper("DELETE FROM audit_entry WHERE subject = 'a:2'")
    wrong = verification.verify().wrong
    assert wrong is not None
    assert "cut off" in wrong.text


def test_a_chain_that_was_made_anew_is_not_the_one_that_was_signed() -> None:
    keys.create_key_pair(now=datetime.now(UTC), active_from=datetime.now(UTC))
    write("a:1")
    chain.seal_ready()
    chain.sign_head()
    tamper("UPDATE audit_entry SET who = 'nobody' WHERE subject = 'a:1'")
    tamper("DELETE FROM audit_seal")
    chain.seal_ready()
    wrong = verification.verify().wrong
    assert wrong is not None
    assert "not what was signed" in wrong.text


def test_a_forged_signature_is_found() -> None:
    keys.create_key_pair(now=datetime.now(UTC), active_from=datetime.now(UTC))
    write("a:1")
    chain.seal_ready()
    chain.sign_head()
    tamper("UPDATE audit_head SET statement = overlay(statement placing 'AAAA' from length(statement) - 20 for 4)")
    wrong = verification.verify().wrong
    assert wrong is not None
    assert "signature" in wrong.text


def test_without_a_key_the_head_stays_unsigned_and_with_one_it_is_signed_daily() -> None:
    write("a:1")
    chain.seal_ready()
    assert chain.sign_head_daily() is None
    keys.create_key_pair(now=datetime.now(UTC), active_from=datetime.now(UTC))
    assert chain.sign_head_daily() is not None
    assert chain.sign_head_daily() is None
    write("a:2")
    chain.seal_ready()
    assert chain.sign_head_daily() is None, "not a day later"
    tamper("UPDATE audit_head SET at = at - interval '25 hours'")
    assert chain.sign_head_daily() is not None
    assert AuditHead.objects.count() == 2


def test_after_transaction_ids_have_started_anew_new_entries_still_come_after_the_sealed_ones() -> None:
    # As in a cluster that is far ahead of the one that the rows are restored into.
    tamper("UPDATE audit_shift SET shift = 1000000")
    write("a:1")
    assert chain.seal_ready() == 1
    tamper("UPDATE audit_shift SET shift = 0")
    try:
        identity.restamp_feed()
        write("a:2")
        assert chain.seal_ready() == 1
        assert sealed_subjects() == ["a:1", "a:2"]
        assert verification.verify().wrong is None
    finally:
        tamper("UPDATE audit_shift SET shift = 0")


def test_archiving_moves_closed_segments_into_files_and_the_check_goes_on_from_there(tmp_path: Path) -> None:
    write("a:1", "a:2")
    chain.seal_ready()
    write("a:3")
    chain.seal_ready()
    border = database_now() + timedelta(milliseconds=1)
    while database_now() < border:
        pass
    before = database_now()
    write("a:4")
    chain.seal_ready()
    archived = archiving.archive(before=before, directory=tmp_path)
    assert archived is not None
    assert (archived.from_seal, archived.to_seal, archived.entries) == (1, 2, 3)
    assert [path.name for path in tmp_path.iterdir()] == [archived.name]
    chain.seal_ready()
    assert sealed_subjects() == ["a:4", archived.name]
    assert verification.verify().wrong is None
    whole = verification.verify([tmp_path / archived.name])
    assert (whole.wrong, whole.entries, whole.files) == (None, 5, 1)
    assert archiving.archive(before=before, directory=tmp_path) is None


def archived_file(directory: Path) -> tuple[AuditArchive, Path]:
    write("a:1", "a:2")
    chain.seal_ready()
    archived = archiving.archive(before=database_now() + timedelta(seconds=1), directory=directory)
    assert archived is not None
    return archived, directory / archived.name


def test_when_all_is_archived_the_chain_goes_on(tmp_path: Path) -> None:
    archived_file(tmp_path)
    assert not AuditSeal.objects.exists()
    chain.seal_ready()
    second = archiving.archive(before=database_now() + timedelta(seconds=1), directory=tmp_path)
    assert second is not None
    assert second.from_seal == 2
    files = sorted(tmp_path.iterdir(), reverse=True)
    assert verification.verify(files).wrong is None
    assert verification.verify(files[:1]).wrong is None, "a later file alone: from where it begins"
    missing = verification.verify(files[1:]).wrong
    assert missing is not None
    assert "end at seal 1" in missing.text


def test_an_archive_file_that_was_changed_is_found(tmp_path: Path) -> None:
    _, path = archived_file(tmp_path)
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    wrong = verification.verify([path]).wrong
    assert wrong is not None
    with pytest.raises(verification.DamagedFileError):
        verification.verify_file(path)


@pytest.mark.parametrize("step", ["written", "recorded"])
def test_archiving_that_died_is_finished_by_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    class DiedError(BaseException):
        pass

    def die(*_: object) -> None:
        raise DiedError

    write("a:1", "a:2")
    chain.seal_ready()
    before = database_now() + timedelta(seconds=1)
    with monkeypatch.context() as patched:
        patched.setattr(archiving, "_record" if step == "written" else "forget_archived", die)
        with pytest.raises(DiedError):
            archiving.archive(before=before, directory=tmp_path)
    assert AuditEntry.objects.filter(subject__in=["a:1", "a:2"]).count() == 2
    assert verification.verify().wrong is None
    archived = archiving.archive(before=before, directory=tmp_path)
    assert (archived is None) == (step == "recorded")
    archiving.forget_archived()
    assert not AuditEntry.objects.filter(subject__in=["a:1", "a:2"]).exists()
    assert verification.verify(list(tmp_path.iterdir())).wrong is None


def test_no_file_no_removal(tmp_path: Path) -> None:
    write("a:1")
    chain.seal_ready()
    (name,) = [f"site-audit-{1:010}-{1:010}{archiving.SUFFIX}"]
    (tmp_path / name).write_bytes(b"something else")
    with pytest.raises(verification.DamagedFileError):
        archiving.archive(before=database_now() + timedelta(seconds=1), directory=tmp_path)
    assert AuditEntry.objects.count() == 1
    assert not AuditArchive.objects.exists()


def test_the_command_verifies_and_fails_when_something_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    write("a:1", "a:2")
    chain.seal_ready()
    call_command("audit", "verify", "--json")
    assert json.loads(capsys.readouterr().out)["ok"] is True
    tamper("UPDATE audit_entry SET reason = 'x' WHERE subject = 'a:2'")
    entry = AuditEntry.objects.get(subject="a:2").pk
    with pytest.raises(CommandError, match=f"entry {entry} was changed") as failed:
        call_command("audit", "verify", "--json")
    assert failed.value.returncode == 1
    assert json.loads(capsys.readouterr().out)["wrong"]["entry"] == entry


def test_details_are_bounded_and_hostile_texts_are_kept_harmlessly() -> None:
    record(Action.ADMIN, "a\0b\ud800" * 200, details={"long": "x" * 10_000}, outcome=Outcome.FAILED, reason="r" * 9999)
    entry = AuditEntry.objects.get()
    assert entry.details == {"tooLong": ["long"]}
    assert (len(entry.subject), len(entry.reason)) == (600, 500)
    assert "\0" not in entry.subject
    chain.seal_ready()
    assert verification.verify().wrong is None


def test_entries_are_dropped_by_nobody_even_in_a_broken_transaction() -> None:
    with direct.connect("test") as other, pytest.raises(psycopg.errors.InsufficientPrivilege):
        other.execute("TRUNCATE audit_entry CASCADE")
