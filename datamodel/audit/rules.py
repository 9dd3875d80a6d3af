"""Words of the audit, the one text form of an entry, and how entries are chained and checked. No Django, no clock, no I/O."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from datamodel.wire import time_text

# Before the first seal.
GENESIS = bytes(32)
DETAILS_BYTES = 4000
_LINK = struct.Struct(">q8s")


class Action(StrEnum):
    """What was done, or refused."""

    PUT = "put"
    DELETE = "delete"
    UNDELETE = "undelete"
    METADATA = "metadata"
    READ = "read"
    RETIRE = "retire"
    HARVEST = "harvest"
    RECONCILE = "reconcile"
    COLLISION = "collision"
    REQUEST = "request"
    LOGIN = "login"
    LOGOUT = "logout"
    TOKEN_CREATED = "token-created"  # noqa: S105  # a word, no secret
    TOKEN_ROTATED = "token-rotated"  # noqa: S105
    TOKEN_REVOKED = "token-revoked"  # noqa: S105
    GRANT_CHANGED = "grant-changed"
    GRANT_REMOVED = "grant-removed"
    ROLE_ASSIGNED = "role-assigned"
    ROLE_WITHDRAWN = "role-withdrawn"
    KEY_CREATED = "key-created"
    KEYS_TRUSTED = "keys-trusted"
    PAIRING = "pairing"
    REMOTE_CHANGED = "remote-changed"
    REMOTE_REWOUND = "remote-rewound"
    SITE_SWITCHED = "site-switched"
    POLICY_CHANGED = "policy-changed"
    POLICY_REMOVED = "policy-removed"
    BRAKE_ENGAGED = "brake-engaged"
    BRAKE_RELEASED = "brake-released"
    ALARM_ACKNOWLEDGED = "alarm-acknowledged"
    ALARM_CLEARED = "alarm-cleared"
    FINDING_APPLIED = "finding-applied"
    QUARANTINE_DECIDED = "quarantine-decided"
    SNAPSHOT_CREATED = "snapshot-created"
    SNAPSHOT_RELEASED = "snapshot-released"
    BACKUP = "backup"
    RESTORE = "restore"
    AUDIT_ARCHIVED = "audit-archived"
    ADMIN = "admin"


# What happens all day; everything else has an index of its own.
COMMON = (Action.PUT, Action.READ)


class Outcome(StrEnum):
    """How it ended."""

    DONE = "done"
    REFUSED = "refused"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Entry:
    """One row, as it is chained and told. `count` is of attempts that were gathered into one."""

    id: int
    txid: int
    at: datetime
    who: str
    method: str
    address: str
    action: str
    subject: str
    outcome: str
    reason: str
    request_id: str
    count: int
    details: Mapping[str, object]

    @property
    def place(self) -> tuple[int, int]:
        return self.txid, self.id

    @property
    def line(self) -> str:
        """The text that is hashed, exported and archived: JSON on one line, in this order of names."""
        return json.dumps(
            {
                "id": self.id,
                "txid": self.txid,
                "at": time_text(self.at),
                "who": self.who,
                "method": self.method,
                "address": self.address,
                "action": self.action,
                "subject": self.subject,
                "outcome": self.outcome,
                "reason": self.reason,
                "request": self.request_id,
                "count": self.count,
                "details": _sorted(self.details),
            },
            separators=(",", ":"),
        )


@dataclass(frozen=True, slots=True)
class Seal:
    """So many entries up to a place, chained to those before. `links` names each entry with the first bytes of the hash after it."""

    number: int
    at: datetime
    to_txid: int
    to_id: int
    entries: int
    previous: bytes
    digest: bytes
    links: bytes

    @property
    def place(self) -> tuple[int, int]:
        return self.to_txid, self.to_id

    def line(self, head: str = "") -> str:
        """As it is exported and archived, with the statement that was signed of it."""
        facts: dict[str, object] = {
            "seal": self.number,
            "at": time_text(self.at),
            "to": [self.to_txid, self.to_id],
            "entries": self.entries,
            "previous": self.previous.hex(),
            "digest": self.digest.hex(),
            "links": self.links.hex(),
        }
        return json.dumps(facts | ({"signed": head} if head else {}), separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class Wrong:
    """The first thing that is not as it was sealed; `entry` if it is one."""

    seal: int
    entry: int | None
    text: str


def hashes(previous: bytes, lines: Sequence[str]) -> Iterator[bytes]:
    """The hash after each line: SHA-256 of the hash before it and the line."""
    for line in lines:
        previous = hashlib.sha256(previous + line.encode()).digest()
        yield previous


def sealed(previous: bytes, entries: Sequence[tuple[int, str]]) -> tuple[bytes, bytes]:
    """Digest and links of a seal over these (id, line)."""
    chain = list(hashes(previous, [line for _, line in entries]))
    links = b"".join(_LINK.pack(identity, digest[:8]) for (identity, _), digest in zip(entries, chain, strict=True))
    return chain[-1], links


def first_wrong(previous: bytes, number: int, seal: Seal, entries: Sequence[tuple[int, str]]) -> Wrong | None:
    """What is wrong with a seal that must be this `number`, over these (id, line), or None.

    The digest decides; the links only tell which entry it is.
    """
    if seal.number != number:
        return Wrong(number, None, f"seal {number} is missing: {seal.number} comes next")
    if seal.previous != previous:
        return Wrong(number, None, f"seal {number} does not follow the one before it")
    chain = list(hashes(previous, [line for _, line in entries]))
    if len(entries) == seal.entries and (chain[-1] if chain else previous) == seal.digest:
        return None
    found = [identity for identity, _ in entries]
    for position, (identity, link) in enumerate(_LINK.iter_unpack(seal.links[: len(seal.links) // 16 * 16])):
        if position >= len(found) or (found[position] != identity and identity not in found):
            return Wrong(number, identity, f"entry {identity} is missing")
        if found[position] != identity:
            return Wrong(number, found[position], f"entry {found[position]} was not there when this was sealed")
        if chain[position][:8] != link:
            return Wrong(number, identity, f"entry {identity} was changed")
    if len(found) > len(seal.links) // 16:
        extra = found[len(seal.links) // 16]
        return Wrong(number, extra, f"entry {extra} was not there when this was sealed")
    return Wrong(number, None, f"seal {number} itself was changed")


def examples(names: Sequence[str]) -> list[str]:
    """The first of many names, as many as details have room for."""
    room, found = DETAILS_BYTES // 2, list[str]()
    for name in names:
        room -= len(name) + 3
        if room < 0:
            break
        found.append(name)
    return found


def bounded(details: Mapping[str, object]) -> dict[str, object]:
    """`details` if they are small; else their names and that they were too much."""
    if len(json.dumps(_sorted(details))) <= DETAILS_BYTES:
        return dict(details)
    return {"tooLong": sorted(details)[:50]}


def _sorted(value: object) -> object:
    """With names in order, at any depth: the database keeps them in its own."""
    if isinstance(value, Mapping):
        return {str(name): _sorted(value[name]) for name in sorted(value)}
    if isinstance(value, (list, tuple)):
        return [_sorted(each) for each in value]
    return value
