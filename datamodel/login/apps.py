"""App config of signing in elsewhere."""

from django.apps import AppConfig


class LoginConfig(AppConfig):
    name = "datamodel.login"
    label = "inventory_login"
    verbose_name = "Sign-in"
