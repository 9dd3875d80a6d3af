"""App configs of signing in elsewhere."""

from allauth.account import apps
from django.apps import AppConfig


class AccountConfig(apps.AccountConfig):
    """Without the middleware that it demands of every request: `views.py` does the same where it is needed."""

    default = False

    def ready(self) -> None:
        """Nothing to check."""


class LoginConfig(AppConfig):
    name = "datamodel.login"
    label = "inventory_login"
    verbose_name = "Sign-in"
    default = True
