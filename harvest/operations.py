"""The writes of the exchange: a batch with its cursor, the lease of a remote, the namespaces that a cursor serves.

Each function is one transaction.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Q, QuerySet
from django.db.models.functions import Now

from datamodel import brake, notify
from datamodel.alarms.operations import raise_alarm
from datamodel.alarms.rules import AlarmKind
from datamodel.errors import InvalidRequestError, RaceLostError, RemoteProtocolError
from datamodel.models import HarvestState, RemoteInventory
from datamodel.positions import Cursor
from datamodel.transactions import serialized
from datamodel.uris import Namespace, namespace_filter
from harvest import apply_artifacts, queries, rules, streams
from harvest.apply_sites import apply_site
from harvest.known import is_known
from harvest.pages import Page
from harvest.staging import stage
from harvest.streams import Stream

LEASE = timedelta(seconds=settings.INVENTORY_HARVEST_LEASE_SECONDS)
# One batch at a time is applied in an inventory: rows of two remotes meet in the same uris and tombstones.
_APPLY_LOCK = 0x48415256
_UNHURRIED = "(SELECT set_config('synchronous_commit', 'off', TRUE)) AS unhurried"
_CLAIM_SQL = f"""
    UPDATE remote_inventory r SET lease_holder = %s, lease_until = now() + make_interval(secs => %s) FROM {_UNHURRIED}
    WHERE r.name = %s AND r.role = %s AND r.enabled AND (r.lease_until IS NULL OR r.lease_until < now())
    RETURNING r.*
"""
_RELEASE_SQL = f"""
    UPDATE remote_inventory r SET lease_holder = NULL, lease_until = NULL,
        last_contact_at = CASE WHEN %s THEN now() ELSE r.last_contact_at END,
        last_error = coalesce(nullif(%s, ''), r.last_error),
        last_error_at = CASE WHEN %s <> '' THEN now() ELSE r.last_error_at END
    FROM {_UNHURRIED} WHERE r.id = %s AND r.lease_holder = %s
"""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to harvest one remote; every batch proves and renews it, so that a holder that slept too long writes nothing."""

    remote_id: int
    name: str
    holder: uuid.UUID
    # Its row when the lease was taken.
    remote: RemoteInventory = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Passed:
    """Streams of which the remote says that they have nothing new up to `cursor`: as good as an empty page of each."""

    names: tuple[str, ...]
    cursor: Cursor


@dataclass(frozen=True, slots=True)
class Applied:
    """What a batch did: rows received, rows changed here, rows set aside."""

    rows: int
    changed: int
    rejected: int


def apply_batch(*, lease: Lease, page: Page, selector: str = "", passed: Sequence[Passed] = ()) -> Applied:
    """Apply one page and move its cursor from the page's start to its end, and those of streams without news as `pass_over`.

    Commits together: rows, tombstones, site locations, conflicts, rejections, the cursors and the renewed lease. Raises
    `RaceLostError` when the lease or the cursor is no longer what the page was fetched with, and `RemoteProtocolError`.
    Repeating a page changes nothing.
    """

    def apply() -> Applied:
        applied = _apply_batch(lease, page, selector)
        for each in passed:
            _pass_over(lease, each)
        return applied

    return serialized(apply)


def claim_remote(name: str) -> Lease | None:
    """The lease of an enabled remote of the role that we harvest; None when another process has it.

    A holder that died loses it after a minute. The commit waits for no disk: every batch proves the claim, whatever is forgotten.
    """
    holder = uuid.uuid4()
    values = [holder, LEASE.total_seconds(), name, queries.harvested_role()]
    for remote in RemoteInventory.objects.raw(_CLAIM_SQL, values):
        return Lease(remote.id, name, holder, remote)
    return None


def renew_lease(lease: Lease) -> None:
    """Another minute. Raises `RaceLostError` when the lease is lost or the remote was disabled."""
    held = RemoteInventory.objects.filter(id=lease.remote_id, lease_holder=lease.holder, enabled=True)
    if not held.update(lease_until=Now() + LEASE):
        raise RaceLostError(f"the lease of {lease.name} is lost: another process harvests it, or it was disabled")


def release_remote(lease: Lease, *, error: str = "", is_listeners: bool = False) -> None:
    """Give the lease back, which wakes the listener; an error is kept for the operator until the next success.

    `is_listeners`: it was the listener's own turn, whose end wakes nobody; without an error the remote has answered it.
    """
    kept = error[:2000]
    _execute(_RELEASE_SQL, [is_listeners and not error, kept, kept, lease.remote_id, lease.holder])
    if not is_listeners:
        notify.announce()


def record_contact(lease: Lease, *, inventory_id: uuid.UUID, is_settled: bool) -> None:
    """The remote answered; when it has nothing new, every cursor is as of now.

    Raises `RemoteProtocolError` when a site or a paired inventory has become another one: its rows would be taken for those of
    the first.
    """
    may_change = Q(role=RemoteInventory.Role.GLOBAL, paired_at__isnull=True)
    same = Q(inventory_id__isnull=True) | Q(inventory_id=inventory_id) | may_change
    with transaction.atomic():
        remote = RemoteInventory.objects.filter(same, id=lease.remote_id)
        if not remote.update(inventory_id=inventory_id, last_contact_at=Now()):
            raise RemoteProtocolError(
                f"{lease.name} says now that it is inventory {inventory_id}, and was another one: "
                "if another site was meant to take its place, add it as a new remote"
            )
        if is_settled:
            remote.exclude(last_error="").update(last_error="")
            HarvestState.objects.filter(remote_id=lease.remote_id).update(updated_at=Now())


def pass_over(lease: Lease, passed: Sequence[Passed]) -> None:
    """Move the cursors of streams without news; one that had not reached an end is left, and so is one beyond."""
    with transaction.atomic():
        renew_lease(lease)
        for each in passed:
            _pass_over(lease, each)
        notify.announce()


def _pass_over(lease: Lease, passed: Passed) -> None:
    cursor = passed.cursor
    HarvestState.objects.filter(
        remote_id=lease.remote_id,
        name__in=passed.names,
        selector="",
        epoch=cursor.epoch,
        is_complete=True,
        cur_txid__lte=cursor.txid,
    ).update(cur_txid=cursor.txid, cur_id=cursor.row_id, updated_at=Now())


def start_states(lease: Lease) -> None:
    """A cursor for each stream that our role reads, and the backfills that the wanted namespaces need.

    A cursor that has not begun serves everything that is wanted; later a namespace that it does not serve gets a backfill
    of its own, and one that is no longer wanted is left out. At a global a namespace that was not asked for before takes
    all cursors back to the start.
    """
    with transaction.atomic():
        known = set(HarvestState.objects.filter(remote_id=lease.remote_id, selector="").values_list("name", flat=True))
        for stream in queries.harvested_streams():
            if stream.name not in known:
                HarvestState.objects.create(remote_id=lease.remote_id, name=stream.name, selector="")
        if settings.INVENTORY_ROLE == "global":
            _widen_at_global(lease.remote_id)
        else:
            _plan_backfills(lease.remote_id, queries.load_selection().wanted)


def restart_stream(lease: Lease, stream: Stream, selector: str = "") -> None:
    """The remote no longer knows our cursor: it is taken back to the start. Rows already here change nothing.

    A main cursor at the start serves everything that is wanted, so it needs no backfills.
    """
    with transaction.atomic():
        if stream is streams.ARTIFACTS and not selector:
            _backfills(lease.remote_id).delete()
        HarvestState.objects.filter(remote_id=lease.remote_id, name=stream.name, selector=selector).update(
            epoch="", cur_txid=0, cur_id=uuid.UUID(int=0), is_complete=False, covers=[]
        )
    start_states(lease)


def skip_history(lease: Lease, stream: Stream, *, cursor: str, reason: str) -> None:
    """Events that we have not read are gone at the remote: go on from its mark, and ask the next comparison what was missed.

    Commits the cursor and an alarm together. Raises `RemoteProtocolError` when that is no cursor beyond ours.
    """
    try:
        mark = Cursor.parse(cursor)
    except InvalidRequestError as error:
        raise RemoteProtocolError(f"{lease.name} did not say where to go on: {error.detail}") from None
    with transaction.atomic():
        renew_lease(lease)
        behind = HarvestState.objects.filter(
            remote_id=lease.remote_id, name=stream.name, selector="", epoch=mark.epoch, cur_txid__lt=mark.txid
        )
        if not behind.update(cur_txid=mark.txid, cur_id=mark.row_id):
            raise RemoteProtocolError(f"{lease.name} says that its events before our cursor are gone")
        raise_alarm(kind=AlarmKind.HISTORY_GONE, subject=lease.name, text=reason)


def join_backfill(lease: Lease, selector: str) -> None:
    """A finished backfill becomes part of the main cursor, which is taken back to where the backfill ended if it is beyond."""
    with transaction.atomic():
        states = HarvestState.objects.select_for_update().filter(remote_id=lease.remote_id, name=streams.ARTIFACTS.name)
        backfill, main = states.filter(selector=selector).first(), states.get(selector="")
        if backfill is None or not backfill.is_complete or backfill.epoch != main.epoch:
            return
        main.cur_txid, main.cur_id = min((main.cur_txid, main.cur_id), (backfill.cur_txid, backfill.cur_id))
        main.covers = _texts([*queries.namespaces_of(main.covers), Namespace.parse(selector)])
        main.rows += backfill.rows
        main.save(update_fields=["cur_txid", "cur_id", "covers", "rows"])
        backfill.delete()
        notify.announce()


def request_backfill(namespaces: Sequence[Namespace]) -> None:
    """Have these namespaces read again from the start, from every global: the policy of a site was widened there.

    Call it in the transaction that changes the policy. Repeating it begins again. Cursors that have not begun need nothing.
    """
    with transaction.atomic():
        for main in _main_cursors():
            if not main.epoch:
                continue
            for namespace in namespace_filter(list(namespaces)):
                HarvestState.objects.update_or_create(
                    remote_id=main.remote_id,
                    name=main.name,
                    selector=namespace.value,
                    defaults={"epoch": "", "cur_txid": 0, "cur_id": uuid.UUID(int=0), "is_complete": False},
                )
        notify.announce()


def forget_namespaces(namespaces: Sequence[Namespace]) -> None:
    """Stop asking for these namespaces: the policy of a site was narrowed. Wanting them again reads their past anew.

    Call it in the transaction that changes the policy. A wider namespace that is still wanted stays covered: wanting the
    forgotten part of it again takes `request_backfill`.
    """
    with transaction.atomic():
        for main in _main_cursors():
            kept = [
                cover for cover in queries.namespaces_of(main.covers) if not any(cover in gone for gone in namespaces)
            ]
            if _texts(kept) != main.covers:
                main.covers = _texts(kept)
                main.save(update_fields=["covers"])
            for backfill in _backfills(main.remote_id):
                if any(Namespace.parse(backfill.selector) in gone for gone in namespaces):
                    backfill.delete()


def _texts(namespaces: Sequence[Namespace]) -> list[str]:
    return [namespace.value for namespace in namespace_filter(list(namespaces))]


def _backfills(remote_id: int) -> QuerySet[HarvestState]:
    return HarvestState.objects.filter(remote_id=remote_id, name=streams.ARTIFACTS.name).exclude(selector="")


def _main_cursors() -> list[HarvestState]:
    return list(
        HarvestState.objects.select_for_update(of=("self",)).filter(
            name=streams.ARTIFACTS.name, selector="", remote__role=RemoteInventory.Role.GLOBAL
        )
    )


def _widen_at_global(remote_id: int) -> None:
    wanted = _texts(queries.namespaces_of(settings.INVENTORY_NAMESPACES))
    states = HarvestState.objects.select_for_update().filter(remote_id=remote_id, selector="")
    main = states.get(name=streams.ARTIFACTS.name)
    if main.covers == wanted and main.epoch:
        return
    # No namespace at all stands for everything.
    is_wider = bool(main.covers) and (
        not wanted or rules.uncovered(queries.namespaces_of(wanted), queries.namespaces_of(main.covers))
    )
    if is_wider:
        states.update(epoch="", cur_txid=0, cur_id=uuid.UUID(int=0), is_complete=False)
    states.filter(name=streams.ARTIFACTS.name).update(covers=wanted)


def _plan_backfills(remote_id: int, wanted: Sequence[Namespace]) -> None:
    states = HarvestState.objects.select_for_update().filter(remote_id=remote_id, name=streams.ARTIFACTS.name)
    main = states.get(selector="")
    if main.epoch:
        for backfill in _backfills(remote_id):
            if not rules.narrowed([Namespace.parse(backfill.selector)], wanted):
                backfill.delete()
        covers = rules.narrowed(queries.namespaces_of(main.covers), wanted)
        for namespace in rules.uncovered(wanted, covers):
            HarvestState.objects.get_or_create(remote_id=remote_id, name=main.name, selector=namespace.value)
    else:
        covers = list(wanted)
        _backfills(remote_id).delete()
    if _texts(covers) != main.covers:
        states.filter(selector="").update(covers=_texts(covers))


def _apply_batch(lease: Lease, page: Page, selector: str) -> Applied:
    if page.count:
        _execute("SELECT pg_advisory_xact_lock(%s)", [_APPLY_LOCK])
    renew_lease(lease)
    state = HarvestState.objects.select_for_update().filter(
        remote_id=lease.remote_id, name=page.stream.name, selector=selector
    )
    current = state.first()
    if current is None or queries.cursor_of(current) != page.start:
        raise RaceLostError(f"the cursor of {page.stream.name} of {lease.name} was moved by someone else")
    rejected, changed = 0, 0
    if page.count and (page.prover or not is_known(page, remote_id=lease.remote_id)):
        rejected = stage(page, remote_id=lease.remote_id)
        changed = _apply_rows(lease, page)
    following = page.next_cursor
    state.update(
        epoch=following.epoch,
        cur_txid=following.txid,
        cur_id=following.row_id,
        rows=current.rows + page.count,
        is_complete=not page.more,
        updated_at=Now(),
    )
    return Applied(page.count, changed, rejected)


def _apply_rows(lease: Lease, page: Page) -> int:
    remote_id = lease.remote_id
    if page.stream is streams.DELETED_ARTIFACTS:
        # Before the first row: artifacts of this remote wait for its deletions, so they stop as well.
        brake.count_removals(source=f"harvest:{lease.name}", uris=apply_artifacts.dead_uris())
    if settings.INVENTORY_ROLE != "global":
        if page.stream is streams.DELETED_ARTIFACTS:
            return apply_artifacts.apply_tombstones_at_site(remote_id=remote_id)
        # Now, and not earlier: the cursor is locked, so a policy changed before now is seen, and one that changes later
        # finds the cursor where this batch leaves it.
        return apply_artifacts.apply_artifacts_at_site(remote_id=remote_id, selection=queries.load_selection())
    if page.stream is streams.SITES:
        return apply_site(remote_id=lease.remote_id, name=lease.name)
    if page.stream is streams.DELETED_ARTIFACTS:
        return apply_artifacts.apply_tombstones_at_global(remote_id=remote_id)
    site_id = _site_of(lease)
    if page.stream is streams.DELETED_LOCATIONS:
        return _execute(
            "DELETE FROM site_location s USING harvested h WHERE s.artifact_id = h.id AND s.site_id = %s "
            "AND (s.release_stored_at IS NULL OR h.last_modified > s.release_stored_at)",
            [site_id],
        )
    if page.stream is streams.LOCATIONS:
        return _renew_released(site_id) + _execute(
            "INSERT INTO site_location (artifact_id, site_id) SELECT h.id, %s FROM harvested h "
            "WHERE NOT EXISTS (SELECT FROM deleted_artifact_event t WHERE t.id = h.id) ON CONFLICT DO NOTHING",
            [site_id],
        )
    return apply_artifacts.apply_artifacts_at_global(remote_id=remote_id, site_id=site_id)


def _renew_released(site_id: uuid.UUID) -> int:
    """A copy that the site stored after the one that it may drop counts again; old news that come again change nothing."""
    return _execute(
        "UPDATE site_location s SET releasing_at = NULL, release_id = NULL, release_stored_at = NULL FROM harvested h "
        "WHERE s.artifact_id = h.id AND s.site_id = %s AND h.last_modified > s.release_stored_at",
        [site_id],
    )


def _site_of(lease: Lease) -> uuid.UUID:
    site_id = RemoteInventory.objects.values_list("site_id", flat=True).get(id=lease.remote_id)
    if site_id is None:
        raise RemoteProtocolError(f"{lease.name} has not said which site it is")
    return site_id


def _execute(statement: str, parameters: Sequence[Any] = ()) -> int:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return int(cursor.rowcount)
