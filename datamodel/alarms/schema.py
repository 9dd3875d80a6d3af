"""The JSON forms of alarms, for the OpenAPI schema."""

from __future__ import annotations

from rest_framework import serializers

from datamodel.alarms.models import Alarm
from datamodel.alarms.rules import AlarmKind

TAGS = {"alarms": "What an operator must know."}


class AlarmSerializer(serializers.ModelSerializer[Alarm]):
    """One thing that goes on until somebody clears it; `count` is how often it happened."""

    class Meta:
        model = Alarm
        fields = [
            "id",
            "kind",
            "subject",
            "text",
            "count",
            "raised_at",
            "last_at",
            "acknowledged_at",
            "acknowledged_by",
            "cleared_at",
            "cleared_by",
        ]


class AlarmsSerializer(serializers.Serializer[object]):
    """A page; `next` is the query of the next one, to be put behind the same path, or null."""

    items = AlarmSerializer(many=True)
    next = serializers.CharField(allow_null=True)


class AlarmsQuerySerializer(serializers.Serializer[object]):
    """What to list."""

    kind = serializers.ChoiceField(choices=[kind.value for kind in AlarmKind], required=False)
    state = serializers.ChoiceField(choices=["open", "cleared", "all"], default="open")
    after = serializers.IntegerField(default=0, min_value=0, max_value=2**63 - 1)
    limit = serializers.IntegerField(default=100, min_value=1, max_value=1000)
