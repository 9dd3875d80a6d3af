"""Recording what is done, in the transaction that does it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from django.db import connection
from psycopg.types.json import Jsonb

from datamodel.audit import acting
from datamodel.audit.acting import Actor
from datamodel.audit.rules import Action, Outcome, bounded, examples
from datamodel.logs import mask_tokens, request_id
from datamodel.prepared import prepared_cursor

_SUBJECT_LENGTH, _REASON_LENGTH = 600, 500

# Also as a part of a statement that is sent anyway (`rows`), which may go on with FROM: then recording costs no round trip.
INSERT_SQL = """
    INSERT INTO audit_entry (who, method, address, action, subject, outcome, reason, request_id, count, details)
    SELECT %(audit_who)s, %(audit_method)s, %(audit_address)s, %(audit_action)s, %(audit_subject)s, %(audit_outcome)s,
        %(audit_reason)s, %(audit_request_id)s, %(audit_count)s, %(audit_details)s
"""

Values = dict[str, Any]


def record(
    action: Action,
    subject: str,
    *,
    details: Mapping[str, object] | None = None,
    outcome: Outcome = Outcome.DONE,
    reason: str = "",
    actor: Actor | None = None,
) -> None:
    """Call it in the transaction that does it: the entry is there if and only if it was done.

    `details` are JSON values, few and small; no secrets. `actor` only where it is not who acts now (see `acting.py`).
    """
    with prepared_cursor() as cursor:
        cursor.execute(
            INSERT_SQL,
            values_of(action, subject, details=details, outcome=outcome, reason=reason, actor=actor),
        )


def record_removals(action: Action, subject: str, uris: Iterable[str], *, actor: Actor | None = None) -> None:
    """One entry for many rows that went at once, with how many and the first of their uris; none if nothing went."""
    _record_many(values_of(action, subject, actor=actor), "removed", list(uris))


def record_refusals(action: Action, subject: str, uris: Iterable[str], *, reason: str) -> None:
    """The same for many that were asked for at once and refused for one reason."""
    _record_many(values_of(action, subject, outcome=Outcome.REFUSED, reason=reason), "refused", list(uris))


def record_permissions(action: Action, subject: str, uris: Iterable[str]) -> None:
    """The same for many that were asked for at once and granted; whoever asked does it, and records that."""
    _record_many(values_of(action, subject), "granted", list(uris))


def _record_many(values: Values, word: str, uris: list[str]) -> None:
    if uris:
        told = {"audit_count": len(uris), "audit_details": Jsonb(bounded({word: len(uris), "uris": examples(uris)}))}
        with connection.cursor() as cursor:
            cursor.execute(INSERT_SQL, values | told)


def values_of(
    action: Action,
    subject: str,
    *,
    details: Mapping[str, object] | None = None,
    outcome: Outcome = Outcome.DONE,
    reason: str = "",
    actor: Actor | None = None,
) -> Values:
    """The parameters of `INSERT_SQL`, for whoever sends it with a statement of its own."""
    work = acting.current()
    work.recorded += 1
    return values_for(
        actor or work.actor,
        action,
        subject,
        details=details,
        outcome=outcome,
        reason=reason,
        request=request_id.get(),
    )


def values_for(
    actor: Actor,
    action: Action,
    subject: str,
    *,
    details: Mapping[str, object] | None = None,
    outcome: Outcome = Outcome.DONE,
    reason: str = "",
    request: str = "",
    count: int = 1,
) -> Values:
    """The same for somebody else and another time; NUL, which PostgreSQL's texts cannot hold, is taken out."""
    return {
        "audit_who": _text(actor.name, 255),
        "audit_method": _text(actor.method, 32),
        "audit_address": _text(actor.address, 64),
        "audit_action": action.value,
        "audit_subject": _text(mask_tokens(subject), _SUBJECT_LENGTH),
        "audit_outcome": outcome.value,
        "audit_reason": _text(mask_tokens(reason), _REASON_LENGTH),
        "audit_request_id": _text(request, 64),
        "audit_count": count,
        "audit_details": Jsonb(bounded(details or {})),
    }


def _text(value: str, length: int) -> str:
    return value.replace("\0", "")[:length].encode(errors="replace").decode()
