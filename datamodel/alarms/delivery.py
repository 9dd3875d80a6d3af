"""Telling what is due: one mail for what has gathered, one signed POST per alarm. No transaction is open meanwhile."""

from __future__ import annotations

import functools
import logging
import smtplib
import time
from collections.abc import Sequence
from datetime import UTC, datetime

import urllib3
from django.conf import settings
from django.core.mail import EmailMessage
from django.db import connection
from urllib3.exceptions import HTTPError

from datamodel import outbound
from datamodel.alarms import channels, messages, operations, rules
from datamodel.alarms.operations import Told
from datamodel.alarms.rules import Webhook
from datamodel.positions import cached_identity

logger = logging.getLogger("inventory.alarms")

_MAILED_AT_ONCE = 50
_POSTED_PER_TURN = 50
# Of a minute for which a delivery is ours.
_TURN_SECONDS = 20.0
_TIMEOUT = urllib3.Timeout(connect=5, read=10)


def deliver_due() -> int:
    """Tell every channel what is due there; returns how many deliveries succeeded.

    Each channel is on its own: one that fails is tried again later, after growing pauses, and keeps no other waiting for long.
    Raises `NotConfiguredError`.
    """
    hooks = channels.webhooks()
    operations.plan_deliveries(channels.names())
    told = _mail() if channels.has_email() else 0
    return told + sum(_post_all(hook) for hook in hooks)


def _mail() -> int:
    due = operations.claim_deliveries(channel=channels.EMAIL, limit=_MAILED_AT_ONCE)
    if not due:
        return 0
    connection.close()
    message = EmailMessage(
        messages.mail_subject(due),
        messages.mail_body(due),
        settings.INVENTORY_ALARM_EMAIL_FROM,
        settings.INVENTORY_ALARM_EMAIL_TO,
        headers={"Message-ID": f"<{due[0].message}.{cached_identity.get().inventory_id}@inventory>"},
    )
    connection.close()
    error = ""
    try:
        message.send()
    except (OSError, smtplib.SMTPException) as failure:
        error = f"{type(failure).__name__}: {failure}"
    return _record(channels.EMAIL, due, error)


def _post_all(hook: Webhook) -> int:
    deadline, told = time.monotonic() + _TURN_SECONDS, 0
    for _ in range(_POSTED_PER_TURN):
        due = operations.claim_deliveries(channel=hook.name, limit=1)
        if not due or time.monotonic() > deadline:
            break
        error = _post(hook, due[0])
        told += _record(hook.name, due, error)
        if error:
            # The others would most likely fail as well; they have their turn at the next tick.
            break
    return told


def _post(hook: Webhook, told: Told) -> str:
    """Why it failed, or nothing."""
    inventory_id, now = str(cached_identity.get().inventory_id), datetime.now(UTC)
    connection.close()
    body = messages.webhook_body(told, inventory_id=inventory_id, now=now)
    message_id, timestamp = f"{inventory_id}_{told.message}", int(now.timestamp())
    headers = {
        "Content-Type": "application/json",
        "User-Agent": f"storage-inventory/{settings.INVENTORY_VERSION}",
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": rules.signature(hook.secret, message_id=message_id, timestamp=timestamp, body=body),
    }
    try:
        answer = _pool(is_private=settings.INVENTORY_ALARM_PRIVATE).request(
            "POST", hook.url, body=body, headers=headers, redirect=False, retries=False, preload_content=False,
            timeout=_TIMEOUT,
        )  # fmt: skip
        # What it says is nothing to us, so nothing of it is read; nor is such a connection used again.
        answer.close()
    except (HTTPError, OSError) as failure:
        return f"{type(failure).__name__}: {failure}"
    return "" if 200 <= answer.status < 300 else f"it answered {answer.status}"


@functools.cache
def _pool(*, is_private: bool) -> urllib3.PoolManager:
    return outbound.pool_manager(is_private=is_private)


def _record(channel: str, told: Sequence[Told], error: str) -> int:
    operations.record_delivery(told=told, error=error)
    facts = {"channel": channel, "alarms": len(told), "first": told[0].message, "result": "failed" if error else "ok"}
    if error:
        logger.warning("END event=deliver_alarms", extra={"facts": facts | {"reason": error}})
        return 0
    logger.info("END event=deliver_alarms", extra={"facts": facts})
    return len(told)
