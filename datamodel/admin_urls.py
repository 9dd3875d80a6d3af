"""Routes of the admin; where a provider is configured its page for signing in takes the place of Django's."""

from __future__ import annotations

from django.conf import settings
from django.contrib import admin
from django.urls import include, path

from datamodel.login import urls as login_urls

_patterns, _application, _name = admin.site.urls
_login = login_urls.urlpatterns if settings.INVENTORY_LOGIN_ISSUER else []

urlpatterns = [path("", include(([*_login, *_patterns], _application), namespace=_name))]
