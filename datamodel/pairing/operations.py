"""Pairing, as each side does it: invite, redeem, keep what was answered; and revoke. Each function is one transaction, and
locks invitations before remotes.

Between the two ends nothing is lost by a crash: the inviting side commits first, and the same acceptor may repeat with the same code
until it expires, which changes nothing more; until then the other side does not know us yet, and refuses.
"""

from __future__ import annotations

import logging
import secrets
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import F, Q, QuerySet
from django.db.models.functions import Now

from datamodel import keys
from datamodel.errors import InvalidRequestError, NotConfiguredError, NotPermittedError, StateConflictError
from datamodel.keysets import thumbprint
from datamodel.logs import unit_of_work
from datamodel.models import FeedReader, PairingInvitation, RemoteInventory, TrustedKey
from datamodel.pairing import rules
from datamodel.pairing.rules import Code, Introduction, MalformedError
from datamodel.remotes import checked_url
from datamodel.sealing import seal, unseal
from datamodel.statements import BETWEEN_INVENTORIES, signed_statement, unverified, verified

logger = logging.getLogger(__name__)

ANSWER_KIND = "storage-inventory-pairing+jwt"
LIFETIME = timedelta(hours=1)
LONGEST_LIFETIME = timedelta(days=7)
# How long it is remembered who was invited.
_KEPT = timedelta(days=90)
_REFUSED = "this pairing code is unknown, spent, expired or void: ask for a new one"


@dataclass(frozen=True, slots=True)
class Invited:
    """A code, which is shown once, and until when it is good."""

    code: str
    invitation_id: uuid.UUID
    expires_at: datetime


def invite(*, name: str, role: str, lifetime: timedelta = LIFETIME) -> Invited:
    """A one-time code for an inventory that shall be known here by this name; an earlier one for it is void.

    Raises `InvalidRequestError`, `StateConflictError` when that name is paired (revoke it first), `NotConfiguredError`.
    """
    now = datetime.now(UTC)
    _check_invitation(name, role, lifetime)
    us, key = introduce(), keys.signing_key(now=now)
    secret = secrets.token_bytes(rules.SECRET_BYTES)
    with unit_of_work(logger, "invite", remote=name) as work, transaction.atomic():
        PairingInvitation.objects.filter(expires_at__lt=now - _KEPT).delete()
        void_invitations(name=name, now=now)
        known = RemoteInventory.objects.select_for_update().filter(name=name).first()
        if known is not None and known.paired_at is not None:
            raise StateConflictError(f"{name} is paired already: revoke it before it is invited anew")
        if known is not None and known.role != role:
            raise StateConflictError(f"{name} is known here as a {known.role}")
        row = PairingInvitation.objects.create(
            name=name,
            role=role,
            proof_key=seal(rules.proof_key(secret)),
            created_at=now,
            expires_at=now + lifetime,
        )
        work.note(invitation=row.id)
    code = Code(us.url, us.inventory_id, row.id, secret, thumbprint(key.public_bytes))
    return Invited(str(code), row.id, row.expires_at)


def redeem(*, invitation_id: uuid.UUID, body: bytes, given_proof: str, introduction: Introduction) -> str:
    """The inviting side: whoever proves to know the secret is paired as it says that it is; returns the signed answer.

    Raises `NotPermittedError`, the same for every reason that has to do with the code; only to those who know the secret
    `StateConflictError`, `InvalidRequestError`. The same acceptor may repeat until the code expires.
    """
    with unit_of_work(logger, "redeem_invitation", invitation=invitation_id) as work:
        _prove(invitation_id, body, given_proof)
        now = datetime.now(UTC)
        with transaction.atomic():
            row = _open_invitations(now).select_for_update().filter(id=invitation_id).first()
            if row is None or row.accepted_by not in {None, introduction.inventory_id}:
                raise NotPermittedError(_REFUSED)
            us = introduce()
            if introduction.role != row.role:
                raise StateConflictError(f"the code is for a {row.role}; it was shown to a {introduction.role}")
            _record(row.name, introduction, us, now)
            row.accepted_by, row.accepted_at = introduction.inventory_id, row.accepted_at or now
            row.save(update_fields=["accepted_by", "accepted_at"])
        work.note(
            remote=row.name,
            inventory=introduction.inventory_id,
            url=introduction.url,
            resource=introduction.resource_id,
        )
    claims = us.as_json() | {"aud": str(invitation_id)}
    return signed_statement(keys.signing_key(now=now), claims, kind=ANSWER_KIND, algorithm=BETWEEN_INVENTORIES)


def complete(*, code: Code, name: str, answer: str) -> RemoteInventory:
    """The accepting side: the answer is believed if the key of the code has signed it. A repeat changes nothing.

    Raises `MalformedError`, `UnbelievableStatementError` for another answer, `StateConflictError`.
    """
    header, claims = unverified(answer)
    them = Introduction.parse(claims)
    raw = them.keys.get(str(header.get("kid")))
    if raw is None or thumbprint(raw) != code.thumbprint:
        raise MalformedError(
            "the answer does not come with the key of the code: make a new code, and look who is in between"
        )
    verified(answer, them.keys, kind=ANSWER_KIND)
    if them.inventory_id != code.inventory_id or claims.get("aud") != str(code.invitation_id):
        raise MalformedError("the answer is of another inventory, or to another code")
    with unit_of_work(logger, "accept_invitation", remote=name) as work, transaction.atomic():
        us = introduce()
        # Where it is, the code says: that is what an operator has seen.
        there = Introduction(them.inventory_id, them.role, them.name, code.url, them.keys, them.resource_id)
        remote = _record(name, there, us, datetime.now(UTC))
        work.note(inventory=them.inventory_id)
    return remote


def revoke(*, name: str, reason: str) -> RemoteInventory:
    """That inventory loses everything at once: its tokens, the URLs that it signed, its codes; nothing waits for it any more.

    It is neither harvested nor located nor counted. A new pairing undoes it; a repeat changes nothing. Raises `InvalidRequestError`.
    """
    if not reason.strip():
        raise InvalidRequestError("say why: the reason is kept in the log")
    check_name(name)
    now = datetime.now(UTC)
    with unit_of_work(logger, "revoke_remote", remote=name, why=reason.strip()) as work, transaction.atomic():
        void_invitations(name=name, now=now)
        remote = RemoteInventory.objects.select_for_update().filter(name=name).first()
        if remote is None:
            raise InvalidRequestError(f"there is no remote named {name}")
        TrustedKey.objects.filter(remote=remote).delete()
        if remote.inventory_id is not None:
            FeedReader.objects.filter(inventory_id=remote.inventory_id, retired_at__isnull=True).update(
                retired_at=Now()
            )
        remote.enabled, remote.paired_at, remote.token = False, None, b""
        remote.revoked_at = remote.revoked_at or now
        remote.save(update_fields=["enabled", "paired_at", "token", "revoked_at"])
        transaction.on_commit(keys.trust_cache.clear)
        work.note(inventory=remote.inventory_id)
    return remote


def void_invitations(*, name: str, now: datetime) -> int:
    """The codes for this name open nothing any more; returns how many still did."""
    return _open_invitations(now).filter(name=name).update(voided_at=now)


def introduce() -> Introduction:
    """What we say of ourselves. Raises `NotConfiguredError` before `manage.py provision` has run."""
    own_id = keys.own_id()
    published = keys.published_keys(now=datetime.now(UTC))
    if own_id is None or not published:
        raise NotConfiguredError("this inventory has no identity or no keys yet: run manage.py provision")
    resource_id = settings.INVENTORY_RESOURCE_ID if settings.INVENTORY_ROLE == "site" else ""
    return Introduction(
        own_id, settings.INVENTORY_ROLE, settings.INVENTORY_NAME, settings.INVENTORY_PUBLIC_URL, published, resource_id
    )


def other_role() -> str:
    """Of those whom we can be paired with."""
    return "site" if settings.INVENTORY_ROLE == "global" else "global"


def check_role(role: str) -> None:
    """Raises `InvalidRequestError` for one that we cannot be paired with."""
    if not rules.may_pair(settings.INVENTORY_ROLE, role):
        other = "globals" if settings.INVENTORY_ROLE == "site" else "sites"
        raise InvalidRequestError(f"a {settings.INVENTORY_ROLE} is paired with {other}, not with a {role or 'nobody'}")


def check_name(name: str) -> None:
    """Raises `InvalidRequestError` for one that is no remote's."""
    if not 0 < len(name) <= 64 or not name.isprintable() or "," in name or name != name.strip():
        raise InvalidRequestError("a name has 1 to 64 printable characters without commas")


def _check_invitation(name: str, role: str, lifetime: timedelta) -> None:
    check_name(name)
    check_role(role)
    if not timedelta(0) < lifetime <= LONGEST_LIFETIME:
        raise InvalidRequestError(f"a code is good for at most {LONGEST_LIFETIME.days} days")


def _open_invitations(now: datetime) -> QuerySet[PairingInvitation]:
    return PairingInvitation.objects.filter(
        voided_at__isnull=True, expires_at__gt=now, attempts__lt=rules.MOST_ATTEMPTS
    )


def _prove(invitation_id: uuid.UUID, body: bytes, given: str) -> None:
    """A failed attempt is counted before it is refused, whatever becomes of the rest."""
    now = datetime.now(UTC)
    row = _open_invitations(now).filter(id=invitation_id).first()
    if row is None:
        raise NotPermittedError(_REFUSED)
    if not rules.is_proven(unseal(row.proof_key), invitation_id, body, given):
        PairingInvitation.objects.filter(id=invitation_id).update(attempts=F("attempts") + 1)
        raise NotPermittedError(_REFUSED)


def _record(name: str, them: Introduction, us: Introduction, now: datetime) -> RemoteInventory:
    """The remote of this name is that inventory, known by these keys. Raises `StateConflictError`, `InvalidRequestError`."""
    check_role(them.role)
    url = checked_url(them.url)
    if them.inventory_id == us.inventory_id:
        raise StateConflictError("an inventory is not paired with itself")
    namesake = RemoteInventory.objects.filter(~Q(name=name), inventory_id=them.inventory_id).first()
    if namesake is not None:
        raise StateConflictError(f"that inventory is known already, as {namesake.name}: pair it under that name")
    known = RemoteInventory.objects.select_for_update().filter(name=name).first()
    if known is not None and (known.inventory_id not in {None, them.inventory_id} or known.role != them.role):
        raise StateConflictError(f"{name} is another inventory, or of another role: pair under another name")
    is_repeat = known is not None and known.paired_at is not None
    remote, _ = RemoteInventory.objects.update_or_create(
        name=name,
        defaults={
            "role": them.role,
            "url": url,
            "token": b"",
            "inventory_id": them.inventory_id,
            "enabled": True,
            "revoked_at": None,
            "paired_at": known.paired_at if known is not None and is_repeat else now,
        },
    )
    keys.replace_trusted_keys(remote=remote, keys=dict(them.keys), now=now)
    return remote
