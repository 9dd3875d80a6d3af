"""Routes of the admin; where a provider is configured its page for signing in takes the place of Django's."""

from __future__ import annotations

from importlib import import_module

from django.conf import settings
from django.contrib import admin
from django.urls import include, path

_patterns, _application, _name = admin.site.urls
# What it needs is installed only then.
_login = import_module("datamodel.login.urls").urlpatterns if settings.INVENTORY_LOGIN_ISSUER else []

urlpatterns = [path("", include(([*_login, *_patterns], _application), namespace=_name))]
