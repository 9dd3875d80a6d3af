"""App config of a storage site."""

from django.apps import AppConfig


class SiteServiceConfig(AppConfig):
    name = "site_service"
    verbose_name = "Storage site"
