"""What an alarm says: as JSON to webhooks and callers, as text to people."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime

from django.conf import settings

from datamodel.alarms.operations import Told
from datamodel.wire import time_text

_RUNBOOK = "datamodel/alarms/RUNBOOK.md"


def webhook_body(told: Told, *, inventory_id: str, now: datetime) -> bytes:
    """One alarm as an event."""
    document = {
        "type": "alarm.cleared" if told.cleared_at is not None else "alarm.raised",
        "timestamp": time_text(now),
        "data": {
            "inventory": {
                "id": inventory_id,
                "name": settings.INVENTORY_NAME,
                "role": settings.INVENTORY_ROLE,
                "url": settings.INVENTORY_PUBLIC_URL,
            },
            "alarm": {
                "id": told.alarm_id,
                "kind": told.kind,
                "subject": told.subject,
                "text": told.text,
                "count": told.count,
                "raisedAt": time_text(told.raised_at),
                "lastAt": time_text(told.last_at),
                "clearedAt": time_text(told.cleared_at) if told.cleared_at is not None else None,
                "runbook": f"{_RUNBOOK}#{told.kind}",
            },
        },
    }
    return json.dumps(document, separators=(",", ":")).encode()


def mail_subject(told: Sequence[Told]) -> str:
    """One line, whatever names are in it."""
    first = f"{told[0].kind}: {told[0].subject}"
    rest = f" and {len(told) - 1} more" if len(told) > 1 else ""
    return " ".join(f"[{settings.INVENTORY_NAME}] {first[:150]}{rest}".split())


def mail_body(told: Sequence[Told]) -> str:
    """Every alarm with what to do about it."""
    lines = [f"{settings.INVENTORY_NAME} ({settings.INVENTORY_ROLE}) at {settings.INVENTORY_PUBLIC_URL} reports:", ""]
    for one in told:
        state = f", cleared {time_text(one.cleared_at)}" if one.cleared_at is not None else ""
        often = f", {one.count} times until {time_text(one.last_at)}" if one.count > 1 else ""
        lines += [
            f"{one.kind}: {one.subject}",
            f"  {one.text}",
            f"  Since {time_text(one.raised_at)}{often}{state}.",
            f"  What to do: {_RUNBOOK}#{one.kind}",
            "",
        ]
    lines.append(f"All alarms: {settings.INVENTORY_PUBLIC_URL}/admin/alarms/alarm/")
    return "\n".join(lines)
