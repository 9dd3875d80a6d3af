"""What django-allauth asks of a project: here nobody registers, no mail is sent, and nothing is taken from a database of providers."""

from __future__ import annotations

import logging
from typing import Any, cast

from allauth.account.adapter import DefaultAccountAdapter
from allauth.core.exceptions import ImmediateHttpResponse
from allauth.socialaccount.adapter import DefaultSocialAccountAdapter
from allauth.socialaccount.models import SocialApp, SocialLogin
from django.conf import settings
from django.contrib import messages
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractUser
from django.db import IntegrityError, transaction
from django.http import HttpRequest, HttpResponseRedirect
from django.urls import reverse

from datamodel.audit.pending import note_refusal
from datamodel.audit.rules import Action
from datamodel.login.operations import update_user
from datamodel.login.outgoing import provider_session
from datamodel.login.provider import PROVIDER, provider_id
from datamodel.login.rules import SignedIn

logger = logging.getLogger(__name__)

_FAILED = "Signing in did not succeed: try again, or ask an operator, who finds the reason in the log."


def turn_away(request: HttpRequest, reason: str, *, told: str = _FAILED) -> HttpResponseRedirect:
    """Back to the page for signing in, with a message; the reason is for the log, and for the audit, which gathers them."""
    note_refusal(Action.LOGIN, reason, reason="single_sign_on")
    logger.warning("END event=login", extra={"facts": {"result": "failed", "reason": reason[:300]}})
    messages.error(request, told)
    return HttpResponseRedirect(reverse("admin:login"))


class AccountAdapter(DefaultAccountAdapter):
    """Accounts of the admin."""

    def is_open_for_signup(self, request: HttpRequest) -> bool:
        del request
        return False

    def add_message(self, *arguments: Any, **options: Any) -> None:
        """The admin greets by itself."""

    def send_mail(self, *arguments: Any, **options: Any) -> None:
        """Nobody gets any."""


class SocialAdapter(DefaultSocialAccountAdapter):
    """Who comes from the one configured provider."""

    def list_apps(
        self, request: HttpRequest, provider: str | None = None, client_id: str | None = None
    ) -> list[SocialApp]:
        del request, provider, client_id
        app = SocialApp(
            provider=PROVIDER,
            provider_id=provider_id(),
            name=settings.INVENTORY_LOGIN_NAME,
            client_id=settings.INVENTORY_LOGIN_CLIENT_ID,
            secret=settings.INVENTORY_LOGIN_CLIENT_SECRET,
            settings={
                "server_url": settings.INVENTORY_LOGIN_ISSUER,
                "scope": ["openid", *settings.INVENTORY_LOGIN_SCOPES],
                "oauth_pkce_enabled": True,
            },
        )
        return [app]

    def get_requests_session(self) -> Any:
        return provider_session()

    def is_open_for_signup(self, request: HttpRequest, sociallogin: SocialLogin) -> bool:
        """Whoever is admitted has a user here; who is not did not come so far."""
        del request, sociallogin
        return True

    def is_auto_signup_allowed(self, request: HttpRequest, sociallogin: SocialLogin) -> bool:
        del request, sociallogin
        return True

    def pre_social_login(self, request: HttpRequest, sociallogin: SocialLogin) -> None:
        signed_in = _signed_in(request)
        if not signed_in.answers(sociallogin.state.get("nonce")):
            raise ImmediateHttpResponse(turn_away(request, "the ID token answers another request (nonce)"))
        person, user = signed_in.person, cast("AbstractUser", sociallogin.user)
        if sociallogin.is_existing:
            update_user(user=user, person=person, prefix=settings.INVENTORY_LOGIN_PREFIX)
        if not person.is_admitted:
            told = "You are in none of the groups that may sign in here."
            raise ImmediateHttpResponse(turn_away(request, f"{person.username} is in no admitted group", told=told))
        if not user.is_active:
            raise ImmediateHttpResponse(
                turn_away(request, f"{user.get_username()} is not active", told="Your user here is not active.")
            )
        if not sociallogin.is_existing:
            if get_user_model().objects.filter(username=person.username).exists():
                told = "There is a user of your name here who is somebody else: ask an operator."
                raise ImmediateHttpResponse(
                    turn_away(request, f"{person.username} exists, with another subject", told=told)
                )
            user.username = person.username

    def save_user(self, request: HttpRequest, sociallogin: SocialLogin, form: Any = None) -> Any:
        del form
        user = cast("AbstractUser", sociallogin.user)
        user.set_unusable_password()
        person = _signed_in(request).person
        try:
            # Whole or not at all: a user without its link would be in its own way.
            with transaction.atomic():
                sociallogin.save(request)
                update_user(user=user, person=person, prefix=settings.INVENTORY_LOGIN_PREFIX)
        except IntegrityError:
            raise ImmediateHttpResponse(turn_away(request, f"{person.username} signs in twice at once")) from None
        return user

    def on_authentication_error(
        self,
        request: HttpRequest,
        provider: Any,
        error: Any = None,
        exception: Any = None,
        extra_context: Any = None,
    ) -> None:
        del provider, extra_context
        raise ImmediateHttpResponse(turn_away(request, f"{error}: {exception}"))


def _signed_in(request: HttpRequest) -> SignedIn:
    return cast("SignedIn", request.signed_in)  # type: ignore[attr-defined]  # by `provider.py`
