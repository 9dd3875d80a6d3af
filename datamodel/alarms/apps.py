"""App config of the alarms."""

from django.apps import AppConfig


class AlarmsConfig(AppConfig):
    name = "datamodel.alarms"
    label = "alarms"
    verbose_name = "Alarms"
