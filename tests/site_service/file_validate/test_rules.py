"""The decision tables, row by row, with the labels of the reference."""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import replace
from datetime import timedelta

import pytest

from datamodel.rules import ArtifactRow, Located
from site_service.file_validate.rules import (
    TAKES_AWAY,
    Action,
    Case,
    Known,
    Label,
    Policy,
    Verdict,
    facts_of,
    is_same_content,
    judge,
)
from site_service.storage.contract import ContentFacts, InvalidObject, StoredObject
from tests.factories import WHEN, artifact_row

LATER = WHEN + timedelta(seconds=1)
HERE = artifact_row()
ELSEWHERE = Located("f" * 32, "fff")
INVALID = InvalidObject("a" * 32, "aaa", "its facts cannot be read")


def found(of: ArtifactRow = HERE, data: bytes = b"content", **changes: object) -> StoredObject:
    checksums = {"md5": hashlib.md5(data).hexdigest(), "sha-256": hashlib.sha256(data).hexdigest()}
    stored = StoredObject("a" * 32, "aaa", len(data), checksums, facts_of(of), LATER)
    return replace(stored, **changes)  # type: ignore[arg-type]  # the caller names real fields


SAME, OTHER = found(), found(data=b"another")
OLDER = replace(OTHER, written_at=WHEN - timedelta(days=1))
SAME_TIME = replace(SAME, written_at=WHEN)
RENAMED = replace(SAME, facts=ContentFacts(uuid.UUID(int=7), HERE.uri))
UNSTORED, STORED = Known(HERE, None), Known(HERE, ELSEWHERE)

INVENTORY = {
    "artifact, object, all equal": (Case(HERE, SAME), Label.VALID, Action.NONE),
    "artifact, no object": (Case(HERE, None), Label.NO_OBJECT, Action.CLEAR_LOCATION),
    "artifact, invalid object": (Case(HERE, INVALID), Label.INVALID, Action.CLEAR_AND_QUARANTINE),
    "artifact, content differs": (Case(HERE, OTHER), Label.METADATA, Action.CLEAR_AND_QUARANTINE),
    "artifact, facts of another id": (Case(HERE, RENAMED), Label.STALE_FACTS, Action.FOLLOW_FACTS),
    "none, invalid object": (Case(None, INVALID), Label.INVALID, Action.QUARANTINE),
    "none, invalid object, young": (Case(None, INVALID, is_young=True), Label.DELAY, Action.NONE),
    "none, uri unknown, young": (Case(None, SAME, is_young=True), Label.DELAY, Action.NONE),
    "none, uri unknown": (Case(None, SAME), Label.NO_ARTIFACT, Action.QUARANTINE),
    "none, uri unknown, deleted": (Case(None, SAME, is_deleted=True), Label.NO_ARTIFACT, Action.QUARANTINE),
    "by uri, unstored, same content": (Case(None, SAME, UNSTORED), Label.NULL_LOCATION, Action.ATTACH_LOCATION),
    "by uri, unstored, young": (Case(None, SAME, UNSTORED, is_young=True), Label.DELAY, Action.NONE),
    "by uri, elsewhere, same content and time": (Case(None, SAME_TIME, STORED), Label.IMPROVE, Action.MOVE_LOCATION),
    "by uri, elsewhere, same content": (Case(None, SAME, STORED), Label.OLD_LOCATION, Action.QUARANTINE),
    "by uri, elsewhere, content differs": (Case(None, OTHER, STORED), Label.OLD_LOCATION, Action.QUARANTINE),
    "by uri, unstored, content differs": (Case(None, OTHER, UNSTORED), Label.OLD_LOCATION, Action.QUARANTINE),
    "by uri, a put on its way": (Case(None, OTHER, STORED, is_young=True), Label.DELAY, Action.NONE),
    "nothing on either side": (Case(None, None), Label.VALID, Action.NONE),
}
STORAGE = {
    "artifact, object, all equal": (Case(HERE, SAME), Label.VALID, Action.NONE),
    "artifact, no object": (Case(HERE, None), Label.NO_OBJECT, Action.CLEAR_LOCATION),
    "artifact, invalid object": (Case(HERE, INVALID), Label.INVALID, Action.CLEAR_LOCATION),
    "artifact, content differs": (Case(HERE, OTHER), Label.METADATA, Action.REPLACE_ARTIFACT),
    "artifact, facts of another id": (Case(HERE, RENAMED), Label.STALE_FACTS, Action.FOLLOW_FACTS),
    "none, invalid object": (Case(None, INVALID), Label.INVALID, Action.NONE),
    "none, valid": (Case(None, SAME), Label.NO_ARTIFACT, Action.CREATE_ARTIFACT),
    "none, valid, young": (Case(None, SAME, is_young=True), Label.NO_ARTIFACT, Action.CREATE_ARTIFACT),
    "none, valid, deleted": (Case(None, SAME, is_deleted=True), Label.DELETED, Action.NONE),
    "by uri, newer content": (Case(None, OTHER, STORED), Label.METADATA, Action.REPLACE_ARTIFACT),
    "by uri, older content": (Case(None, OLDER, STORED), Label.OLD_LOCATION, Action.NONE),
    "by uri, unstored, same content": (Case(None, SAME, UNSTORED), Label.NULL_LOCATION, Action.ATTACH_LOCATION),
    "by uri, elsewhere, same content": (Case(None, SAME, STORED), Label.OLD_LOCATION, Action.NONE),
    "nothing on either side": (Case(None, None), Label.VALID, Action.NONE),
}
RECOVER = {
    "artifact, object, all equal": (Case(HERE, SAME), Label.VALID, Action.NONE),
    "artifact, no object": (Case(HERE, None), Label.NO_OBJECT, Action.NONE),
    "artifact, invalid object": (Case(HERE, INVALID), Label.INVALID, Action.NONE),
    "artifact, content differs": (Case(HERE, OTHER), Label.METADATA, Action.NONE),
    "artifact, facts of another id": (Case(HERE, RENAMED), Label.STALE_FACTS, Action.FOLLOW_FACTS),
    "none, invalid object": (Case(None, INVALID), Label.INVALID, Action.NONE),
    "none, valid": (Case(None, SAME), Label.NO_ARTIFACT, Action.CREATE_ARTIFACT),
    "none, valid, deleted": (Case(None, SAME, is_deleted=True), Label.DELETED, Action.RETIRE),
    "none, valid, uri deleted later": (Case(None, SAME, is_outlived=True), Label.OUTLIVED, Action.QUARANTINE),
    "by uri, unstored, same content": (Case(None, SAME, UNSTORED), Label.NULL_LOCATION, Action.ATTACH_LOCATION),
    "by uri, elsewhere, same content": (Case(None, SAME, STORED), Label.OLD_LOCATION, Action.NONE),
    "by uri, newer content": (Case(None, OTHER, STORED), Label.METADATA, Action.REPLACE_ARTIFACT),
    "by uri, older content": (Case(None, OLDER, STORED), Label.OLD_LOCATION, Action.NONE),
    "nothing on either side": (Case(None, None), Label.VALID, Action.NONE),
}
TABLES = {
    Policy.INVENTORY_IS_ALWAYS_RIGHT: INVENTORY,
    Policy.STORAGE_IS_ALWAYS_RIGHT: STORAGE,
    Policy.RECOVER_FROM_STORAGE: RECOVER,
}
ROWS = [(policy, name) for policy, table in TABLES.items() for name in table]


def test_the_tables_are_whole() -> None:
    assert len(ROWS) == 18 + 14 + 14
    used = {label for table in TABLES.values() for _, label, _ in table.values()}
    assert used == set(Label)
    assert {action for table in TABLES.values() for _, _, action in table.values()} == set(Action)


@pytest.mark.parametrize(("policy", "name"), ROWS)
def test_row(policy: Policy, name: str) -> None:
    case, label, action = TABLES[policy][name]
    assert judge(policy, case) == Verdict(label, action)


@pytest.mark.parametrize("policy", list(Policy))
@pytest.mark.parametrize("here", [HERE, None])
@pytest.mark.parametrize("object_", [None, INVALID])
@pytest.mark.parametrize("is_young", [True, False])
def test_a_missing_or_invalid_object_never_deletes_an_artifact(
    policy: Policy, here: ArtifactRow | None, object_: InvalidObject | None, *, is_young: bool
) -> None:
    verdict = judge(policy, Case(here, object_, is_young=is_young))
    assert verdict.action is not Action.REPLACE_ARTIFACT


def test_only_the_policy_that_believes_the_inventory_takes_objects_away() -> None:
    storage = {action for _, _, action in TABLES[Policy.STORAGE_IS_ALWAYS_RIGHT].values()}
    assert not storage & {Action.QUARANTINE, Action.CLEAR_AND_QUARANTINE}
    assert {action for _, _, action in RECOVER.values()} & TAKES_AWAY == {Action.REPLACE_ARTIFACT, Action.QUARANTINE}


def test_recovery_sets_apart_only_what_no_row_ever_referred_to() -> None:
    quarantined = [(case, label) for case, label, action in RECOVER.values() if action is Action.QUARANTINE]
    assert [label for _, label in quarantined] == [Label.OUTLIVED]
    assert all(case.here is None and case.named is None for case, _ in quarantined)


def test_content_is_compared_by_what_both_sides_claim() -> None:
    assert is_same_content(HERE, SAME)
    assert not is_same_content(HERE, replace(SAME, length=8))
    assert not is_same_content(HERE, replace(SAME, checksums={"md5": "0" * 32}))
    sha256_only = {"sha-256": SAME.checksums["sha-256"]}
    assert is_same_content(HERE, replace(SAME, checksums=sha256_only))
    assert not is_same_content(HERE, replace(SAME, checksums={"sha-256": "0" * 64}))
    assert is_same_content(replace(HERE, content_sha256=None), replace(SAME, checksums=sha256_only))
