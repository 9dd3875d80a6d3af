"""The brake on deletions: who removes more in a day than is allowed, of a namespace or of all, is stopped until an operator lets it pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta

from django.conf import settings
from django.db import connection, transaction
from django.db.models import QuerySet
from django.db.models.functions import Now

from datamodel import notify
from datamodel.alarms.models import Alarm
from datamodel.alarms.operations import clear_alarms, raise_alarm
from datamodel.alarms.rules import AlarmKind
from datamodel.audit import acting
from datamodel.audit.pending import note_refusal
from datamodel.audit.recording import record
from datamodel.audit.rules import Action, Outcome
from datamodel.deletion import Limits, governing
from datamodel.errors import DeletionBrakeError
from datamodel.models import BrakeRule, DeletionBrake
from datamodel.queries import row_count
from datamodel.uris import longest_namespace_sql, prefix_upper_bound

RELEASE = timedelta(hours=24)
_TALLY_SQL = """
    INSERT INTO deletion_brake AS b (source, namespace, day, removed, reason)
    VALUES (%(source)s, %(namespace)s, (now() AT TIME ZONE 'UTC')::date, %(more)s, '')
    ON CONFLICT (source, namespace) DO UPDATE SET day = excluded.day,
        removed = excluded.removed + CASE WHEN b.day = excluded.day THEN b.removed ELSE 0 END
    RETURNING b.removed - %(more)s, b.engaged_at IS NOT NULL, coalesce(b.released_until > now(), false)
"""
_TOTAL_SQL = "SELECT count(*) FROM (SELECT FROM artifact WHERE uri >= %s AND uri < %s LIMIT %s) AS counted"


def count_removals(*, source: str, uris: Iterable[str]) -> None:
    """Call it in the transaction that removes the artifacts (or copies) of these uris on behalf of a source, before it does.

    Each uri counts under the longest namespace that has a BrakeRule, the others under the settings. Raises
    `DeletionBrakeError`, which must undo the transaction; around that is `engaging`. A source that was stopped
    stays stopped, the next day too, until `release`.
    """
    rules = _rules()
    _count_all(source, Counter(governing(uri, rules) for uri in uris), rules)


def foresee_removals(*, source: str, uris: Iterable[str]) -> None:
    """Raises as `count_removals` would if all these were removed now; counts nothing."""
    rules = _rules()
    foresee_counts(source=source, counts=Counter(governing(uri, rules) for uri in uris))


def foresee_counts(*, source: str, counts: Mapping[str, int]) -> None:
    """The same for so many of each namespace that has a rule ("": of none)."""
    with transaction.atomic():
        _count_all(source, counts, _rules())
        transaction.set_rollback(True)


def governing_sql(column: str) -> tuple[str, dict[str, str | float]]:
    """The namespace whose rule counts for a column's uri ("": none), as SQL with its named parameters."""
    return longest_namespace_sql(column, [(name, name) for name in _rules()], otherwise="''", name="rule")


def engage(stopped: DeletionBrakeError) -> None:
    """Record that a source was stopped, which is an alarm; the first time stands. What somebody tries again is a refusal of its own."""
    source, namespace = str(stopped.fields["source"]), str(stopped.fields["namespace"])
    with transaction.atomic():
        brake, _ = DeletionBrake.objects.get_or_create(source=source, namespace=namespace, defaults={"day": Now()})
        waiting = DeletionBrake.objects.filter(id=brake.id, engaged_at__isnull=True)
        if waiting.update(engaged_at=Now(), reason=stopped.detail[:500]):
            record(Action.BRAKE_ENGAGED, str(brake), outcome=Outcome.REFUSED, reason=stopped.detail)
        elif acting.current().actor.method != acting.SYSTEM:
            note_refusal(Action.BRAKE_ENGAGED, str(brake), reason=stopped.code)
        raise_alarm(kind=AlarmKind.DELETION_BRAKE, subject=str(brake), text=stopped.detail)


@contextmanager
def engaging() -> Iterator[None]:
    """Whoever is stopped in this block is recorded as stopped, and an alarm; put it around the transaction that is undone."""
    try:
        yield
    except DeletionBrakeError as stopped:
        engage(stopped)
        raise


def release(*, brakes: QuerySet[DeletionBrake], period: timedelta = RELEASE) -> int:
    """An operator lets these pass for a time, however much they remove; returns how many. Whoever waits is woken."""
    with transaction.atomic():
        subjects = [str(brake) for brake in brakes]
        released = brakes.update(engaged_at=None, reason="", released_until=Now() + period)
        raised = Alarm.objects.filter(kind=AlarmKind.DELETION_BRAKE.value, subject__in=subjects)
        clear_alarms(alarms=raised, by="release")
        for subject in subjects:
            record(Action.BRAKE_RELEASED, subject, details={"hours": period.total_seconds() / 3600})
        notify.announce()
    return released


def _rules() -> dict[str, Limits]:
    return {
        rule.namespace: Limits(rule.most_count, rule.most_percent / 100)
        for rule in BrakeRule.objects.all()
    }  # fmt: skip


def _count_all(source: str, counts: Mapping[str, int], rules: Mapping[str, Limits]) -> None:
    # In one order, so that two sources never wait for each other.
    for namespace, more in sorted(counts.items()):
        limits = rules.get(namespace) or Limits(settings.INVENTORY_BRAKE_COUNT, settings.INVENTORY_BRAKE_PERCENT / 100)
        _count(source, namespace, more, limits)


def _count(source: str, namespace: str, more: int, limits: Limits) -> None:
    with connection.cursor() as cursor:
        cursor.execute(_TALLY_SQL, {"source": source, "namespace": namespace, "more": more})
        removed, is_engaged, is_released = cursor.fetchone()
    if is_released or (not is_engaged and removed + more <= limits.count):
        return
    total = _total(namespace, limits.total_that_allows(removed + more))
    if is_engaged or limits.exceeded(removed=removed, more=more, total=total):
        of = f" of {namespace}" if namespace else ""
        raise DeletionBrakeError(
            f"{source} would remove {more} artifacts{of} after {removed} today; {limits.allowance(total)} a day pass unasked. "
            "Nothing was removed. If it is meant: manage.py release_brake, or the admin",
            source=source,
            namespace=namespace,
            removed=removed,
            more=more,
        )


def _total(namespace: str, enough: int) -> int:
    """How many artifacts there are, of a namespace counted no further than `enough`."""
    if not namespace:
        return row_count("artifact")
    with connection.cursor() as cursor:
        cursor.execute(_TOTAL_SQL, [namespace, prefix_upper_bound(namespace), enough])
        (count,) = cursor.fetchone()
    return int(count)
