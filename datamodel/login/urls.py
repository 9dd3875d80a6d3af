"""Routes of signing in elsewhere, among those of the admin; nothing of django-allauth's own is mounted."""

from __future__ import annotations

from django.urls import path

from datamodel.login import views

urlpatterns = [
    path("login/", views.page, name="login"),
    path("oidc/login/", views.begin, name="oidc-begin"),
    path("oidc/callback/", views.finish, name="oidc-callback"),
]
