"""Sessions of the admin: who signed in, who signed out, who was not let."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import AbstractUser
from django.contrib.auth.signals import user_logged_in, user_logged_out, user_login_failed
from django.dispatch import receiver
from django.http import HttpRequest

from datamodel.audit import acting
from datamodel.audit.acting import Actor
from datamodel.audit.pending import pending
from datamodel.audit.recording import record
from datamodel.audit.rules import Action
from datamodel.logs import request_id


@receiver(user_logged_in)
def signed_in(*, request: HttpRequest | None, user: AbstractUser, **_signal: Any) -> None:
    """A session begins."""
    _record(Action.LOGIN, request, user)


@receiver(user_logged_out)
def signed_out(*, request: HttpRequest | None, user: AbstractUser | None, **_signal: Any) -> None:
    """A session ends."""
    if user is not None:
        _record(Action.LOGOUT, request, user)


@receiver(user_login_failed)
def not_let_in(*, credentials: dict[str, Any], request: HttpRequest | None = None, **_signal: Any) -> None:
    """A wrong name or password: gathered, so that guessing does not fill the table."""
    actor = Actor("anonymous", "anonymous", acting.address_of(request) if request is not None else "")
    subject = str(credentials.get("username", ""))
    pending.refused(actor, Action.LOGIN, subject, reason="not_authenticated", request=request_id.get())


def _record(action: Action, request: HttpRequest | None, user: AbstractUser) -> None:
    address = acting.address_of(request) if request is not None else ""
    record(action, user.get_username(), actor=Actor(user.get_username(), "session", address))
