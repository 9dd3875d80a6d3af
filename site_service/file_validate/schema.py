"""The JSON forms of runs and findings, for the OpenAPI schema."""

from __future__ import annotations

from rest_framework import serializers

from site_service.file_validate.models import ValidationFinding, ValidationRun
from site_service.file_validate.rules import Label, Policy

TAGS = {"validation": "Inventory against storage: runs and findings (report only)."}


class FindingSerializer(serializers.ModelSerializer[ValidationFinding]):
    """One place in the store where the sides differ: why (`label`), and what applying it would do (`action`)."""

    class Meta:
        model = ValidationFinding
        fields = [
            "id",
            "policy",
            "label",
            "action",
            "storage_bucket",
            "storage_id",
            "artifact_id",
            "uri",
            "content_length",
            "detail",
            "first_seen_at",
            "seen_at",
            "state",
            "state_at",
            "decided_by",
            "run",
        ]


class FindingsSerializer(serializers.Serializer[object]):
    """A page; `next` is the query of the next one, to be put behind the same path, or null."""

    items = FindingSerializer(many=True)
    next = serializers.CharField(allow_null=True)


class FindingsQuerySerializer(serializers.Serializer[object]):
    """What to list."""

    label = serializers.ChoiceField(  # type: ignore[assignment]  # the class takes its fields off itself
        choices=[label.value for label in Label], required=False
    )
    policy = serializers.ChoiceField(choices=[policy.value for policy in Policy], required=False)
    state = serializers.ChoiceField(choices=ValidationFinding.State.values, default="open")
    after = serializers.IntegerField(default=0, min_value=0, max_value=2**63 - 1)
    limit = serializers.IntegerField(default=1000, min_value=1, max_value=10_000)


class RunSerializer(serializers.ModelSerializer[ValidationRun]):
    """One run: how far it is, what it held, counts by label. `not_kept` findings had no room in the table."""

    class Meta:
        model = ValidationRun
        fields = [
            "id",
            "policy",
            "bucket_prefix",
            "started_by",
            "started_at",
            "state",
            "next_bucket",
            "artifacts",
            "objects_seen",
            "bytes_seen",
            "counts",
            "not_kept",
            "finished_at",
            "last_error",
        ]


class RunsSerializer(serializers.Serializer[object]):
    """The newest runs first."""

    runs = RunSerializer(many=True)
