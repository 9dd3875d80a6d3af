"""The page for signing in, the way to the identity provider, and the way back."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from allauth.account.middleware import AccountMiddleware
from allauth.core.exceptions import ImmediateHttpResponse
from allauth.socialaccount.adapter import get_adapter
from allauth.socialaccount.providers.oauth2.client import OAuth2Error
from allauth.socialaccount.providers.oauth2.views import OAuth2CallbackView
from django.conf import settings
from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.cache import never_cache

from datamodel.login.adapters import turn_away
from datamodel.login.provider import LoginAdapter, provider_id

# What `requests` raises is an OSError.
_FAILURES = (OAuth2Error, OSError, ValueError)

View = Callable[[HttpRequest], HttpResponse]


def page(request: HttpRequest) -> HttpResponseBase:
    """The admin's own, with a button."""
    admin.site.login_template = "admin/datamodel/login/login.html"
    return admin.site.login(request, {"login_name": settings.INVENTORY_LOGIN_NAME})


def _in_context(view: View) -> View:
    """What django-allauth's middleware does for every request, for these."""
    return cast("View", AccountMiddleware(view))


@never_cache
@_in_context
def begin(request: HttpRequest) -> HttpResponse:
    """A page that goes to the provider: after a form a redirect to elsewhere is what our content policy forbids."""
    if request.method != "POST":
        return redirect("admin:login")
    try:
        provider = get_adapter().get_provider(request, provider_id())
        answer = provider.redirect(request, process="login", next_url=_next(request))
    except ImmediateHttpResponse as error:
        response: HttpResponse = error.response
        return response
    except _FAILURES as error:
        return turn_away(request, f"the provider cannot be asked: {error}")
    facts = {"url": answer["Location"], "login_name": settings.INVENTORY_LOGIN_NAME}
    return render(request, "admin/datamodel/login/leaving.html", facts)


@never_cache
@_in_context
def finish(request: HttpRequest) -> HttpResponse:
    """Signed in for a while, or back to the page for signing in. Asked twice the second does not succeed: a state is good once."""
    if request.method != "GET":
        return redirect("admin:login")
    try:
        response: HttpResponse = OAuth2CallbackView.adapter_view(LoginAdapter(request))(request)
    except _FAILURES as error:
        return turn_away(request, f"the provider cannot be asked: {error}")
    if request.user.is_authenticated:
        request.session.set_expiry(settings.INVENTORY_LOGIN_SECONDS)
    return response


def _next(request: HttpRequest) -> str:
    """Only a page of this service."""
    wanted = request.POST.get("next", "")
    is_ours = url_has_allowed_host_and_scheme(wanted, allowed_hosts=None)
    return wanted if is_ours and wanted.startswith(f"/{settings.INVENTORY_BASE_PATH}") else reverse("admin:index")
