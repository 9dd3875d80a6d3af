"""App config of a storage site."""

from importlib import import_module

from django.apps import AppConfig


class SiteServiceConfig(AppConfig):
    """Gives every process of a site its Dramatiq broker: a task that sends must find one."""

    name = "site_service"
    verbose_name = "Storage site"

    def ready(self) -> None:
        import_module("site_service.broker")
