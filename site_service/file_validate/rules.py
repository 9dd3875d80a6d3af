"""What a difference between inventory and storage means, as three decision tables (reference 5.3), and what would mend it.

Corrections of the reference: a missing or invalid object never deletes an artifact, it takes a location out; nothing in a store
is removed, it goes to quarantine; whatever may still be on its way is left alone for a grace time, not only unknown uris; an
object that is older than an artifact never replaces it; and of two objects with the content of one artifact the stored one stays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from datamodel.rules import ArtifactRow, Located
from site_service.storage.contract import ContentFacts, InvalidObject, StoredObject


class Policy(StrEnum):
    """Which side is believed."""

    INVENTORY_IS_ALWAYS_RIGHT = "InventoryIsAlwaysRight"
    STORAGE_IS_ALWAYS_RIGHT = "StorageIsAlwaysRight"
    RECOVER_FROM_STORAGE = "RecoverFromStorage"


class Label(StrEnum):
    """The reason words of the reference; the last three are ours."""

    VALID = "valid"
    DELAY = "delay"
    INVALID = "invalid-storageLocation"
    NO_OBJECT = "no-matching-storageLocation"
    NO_ARTIFACT = "no-matching-artifact"
    METADATA = "metadata"
    NULL_LOCATION = "null-storageLocation"
    IMPROVE = "improve-contentLastModified"
    OLD_LOCATION = "old-storageLocation"
    DELETED = "deleted-artifact"
    STALE_FACTS = "stale-facts"
    OUTLIVED = "deleted-later"


class Action(StrEnum):
    """What applying a finding does. None of them removes bytes."""

    NONE = "none"
    CLEAR_LOCATION = "clear_location"
    QUARANTINE = "quarantine_object"
    CLEAR_AND_QUARANTINE = "clear_and_quarantine"
    ATTACH_LOCATION = "attach_location"
    MOVE_LOCATION = "move_location"
    CREATE_ARTIFACT = "create_artifact"
    REPLACE_ARTIFACT = "replace_artifact"
    FOLLOW_FACTS = "follow_facts"
    RETIRE = "retire_object"


# Those after which something is not served any more that was served before; and those that keep apart besides.
REMOVES_ROWS = frozenset({Action.CLEAR_LOCATION, Action.CLEAR_AND_QUARANTINE, Action.REPLACE_ARTIFACT})
TAKES_AWAY = REMOVES_ROWS | {Action.QUARANTINE}


class ClaimedContent(Protocol):
    """What a row says of the bytes."""

    @property
    def content_checksum(self) -> str: ...
    @property
    def content_length(self) -> int: ...
    @property
    def content_sha256(self) -> bytes | None: ...


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why, and what to do about it."""

    label: Label
    action: Action = Action.NONE


@dataclass(frozen=True, slots=True)
class Known:
    """An artifact and, if it is stored here, where."""

    artifact: ArtifactRow
    location: Located | None


@dataclass(frozen=True, slots=True)
class Case:
    """What both sides say of one place in the store.

    `here` is the artifact whose bytes should be there; `found` what is there (None only if the store was asked for this very
    id and has no such object). Without `here`, `named` is the artifact of the object's id or uri, `is_deleted` says that its id
    is tombstoned, `is_outlived` that its uri was deleted after the object was written, and `is_young` that it came so lately that
    its row may be on the way.
    """

    here: ArtifactRow | None
    found: StoredObject | InvalidObject | None
    named: Known | None = None
    is_young: bool = False
    is_deleted: bool = False
    is_outlived: bool = False


VALID = Verdict(Label.VALID)


def judge(policy: Policy, case: Case) -> Verdict:
    """What the policy makes of a case."""
    return _TABLES[policy](case)


def inventory_is_always_right(case: Case) -> Verdict:
    """For a site that serves: the store follows the inventory."""
    if case.here is not None:
        if case.found is None:
            return Verdict(Label.NO_OBJECT, Action.CLEAR_LOCATION)
        if isinstance(case.found, InvalidObject):
            return Verdict(Label.INVALID, Action.CLEAR_AND_QUARANTINE)
        if not is_same_content(case.here, case.found):
            return Verdict(Label.METADATA, Action.CLEAR_AND_QUARANTINE)
        return _facts(case.here, case.found)
    if case.found is None:
        return VALID
    if case.is_young:
        return Verdict(Label.DELAY)
    if isinstance(case.found, InvalidObject):
        return Verdict(Label.INVALID, Action.QUARANTINE)
    if case.named is None:
        return Verdict(Label.NO_ARTIFACT, Action.QUARANTINE)
    artifact = case.named.artifact
    if is_same_content(artifact, case.found):
        if case.named.location is None:
            return Verdict(Label.NULL_LOCATION, Action.ATTACH_LOCATION)
        if case.found.written_at == artifact.content_last_modified:
            return Verdict(Label.IMPROVE, Action.MOVE_LOCATION)
    return Verdict(Label.OLD_LOCATION, Action.QUARANTINE)


def storage_is_always_right(case: Case) -> Verdict:
    """For a site that only takes in what its store holds: never touches files."""
    if case.here is not None:
        if case.found is None:
            return Verdict(Label.NO_OBJECT, Action.CLEAR_LOCATION)
        if isinstance(case.found, InvalidObject):
            return Verdict(Label.INVALID, Action.CLEAR_LOCATION)
        if not is_same_content(case.here, case.found):
            return Verdict(Label.METADATA, Action.REPLACE_ARTIFACT)
        return _facts(case.here, case.found)
    return _taken_in(case)


def recover_from_storage(case: Case) -> Verdict:
    """For a lost inventory: rows come back, ids included; nothing that is known is taken away (validate afterwards)."""
    if case.here is not None:
        if case.found is None:
            return Verdict(Label.NO_OBJECT)
        if isinstance(case.found, InvalidObject):
            return Verdict(Label.INVALID)
        if not is_same_content(case.here, case.found):
            return Verdict(Label.METADATA)
        return _facts(case.here, case.found)
    if isinstance(case.found, StoredObject) and case.is_deleted:
        return Verdict(Label.DELETED, Action.RETIRE)
    if isinstance(case.found, StoredObject) and case.is_outlived and case.named is None:
        # A second copy of what was deleted then, or content whose row nobody has: only a person can tell.
        return Verdict(Label.OUTLIVED, Action.QUARANTINE)
    return _taken_in(case)


def _taken_in(case: Case) -> Verdict:
    """An object that no location names, where rows are made from objects."""
    if case.found is None:
        return VALID
    if isinstance(case.found, InvalidObject):
        return Verdict(Label.INVALID)
    if case.is_deleted:
        return Verdict(Label.DELETED)
    if case.named is None:
        return Verdict(Label.NO_ARTIFACT, Action.CREATE_ARTIFACT)
    artifact = case.named.artifact
    if is_same_content(artifact, case.found):
        is_missing = case.named.location is None
        return Verdict(Label.NULL_LOCATION, Action.ATTACH_LOCATION) if is_missing else Verdict(Label.OLD_LOCATION)
    if case.found.written_at > artifact.content_last_modified:
        return Verdict(Label.METADATA, Action.REPLACE_ARTIFACT)
    return Verdict(Label.OLD_LOCATION)


def is_same_content(artifact: ClaimedContent, found: StoredObject) -> bool:
    """Equal length, and equal digest by the strongest claim that both make; times do not matter."""
    if artifact.content_length != found.length:
        return False
    algorithm, _, digits = artifact.content_checksum.partition(":")
    if algorithm in found.checksums:
        return found.checksums[algorithm] == digits
    if artifact.content_sha256 is not None and "sha-256" in found.checksums:
        return found.checksums["sha-256"] == artifact.content_sha256.hex()
    return True


def facts_of(artifact: ArtifactRow) -> ContentFacts:
    """What the store should keep beside the bytes of an artifact."""
    return ContentFacts(artifact.id, artifact.uri, artifact.content_type, artifact.content_encoding)


def _facts(artifact: ArtifactRow, found: StoredObject) -> Verdict:
    return VALID if found.facts == facts_of(artifact) else Verdict(Label.STALE_FACTS, Action.FOLLOW_FACTS)


_TABLES: Mapping[Policy, Callable[[Case], Verdict]] = {
    Policy.INVENTORY_IS_ALWAYS_RIGHT: inventory_is_always_right,
    Policy.STORAGE_IS_ALWAYS_RIGHT: storage_is_always_right,
    Policy.RECOVER_FROM_STORAGE: recover_from_storage,
}
