"""Which alarms there are."""

from __future__ import annotations

from django.db.models import QuerySet

from datamodel.alarms.models import Alarm


def listed(*, state: str, kind: str = "", after: int = 0) -> QuerySet[Alarm]:
    """`open`, `cleared` or `all` of them, in order of their numbers, after one."""
    found = Alarm.objects.filter(id__gt=after).order_by("id")
    if kind:
        found = found.filter(kind=kind)
    return found if state == "all" else found.filter(cleared_at__isnull=state == "open")
