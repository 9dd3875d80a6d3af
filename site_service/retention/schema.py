"""The JSON forms of undeletion and of retire, for validation and for the OpenAPI schema."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from site_service.retention.models import CopyRelease, RetireRun

TAGS = {
    "undelete": "Deleted and replaced content that is kept lives again.",
    "retire": "Local copies are dropped, as far as the globals allow.",
}
MAX_PAGE = 1000


class UndeleteSerializer(serializers.Serializer[object]):
    """One uri, or a page of a namespace: which content, and whether what is there now may be replaced."""

    uri = serializers.CharField(required=False, max_length=2048, trim_whitespace=False)
    namespace = serializers.CharField(required=False, max_length=512, trim_whitespace=False)
    asOf = serializers.DateTimeField(  # noqa: N815  # a name of the wire
        required=False,
        allow_null=True,
        default=None,
        help_text="The content that lived then; without it, what ended last.",
    )
    replace = serializers.BooleanField(default=False, help_text="Other content that has the uri now is replaced.")
    preview = serializers.BooleanField(
        default=False, help_text="Of a namespace: change nothing, tell what would become."
    )
    after = serializers.CharField(required=False, default="", allow_blank=True, max_length=512, trim_whitespace=False)
    limit = serializers.IntegerField(default=MAX_PAGE, min_value=1, max_value=MAX_PAGE)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if ("uri" in attrs) == ("namespace" in attrs):
            raise serializers.ValidationError("name either a uri or a namespace")
        return attrs


class UndeletedSerializer(serializers.Serializer[object]):
    """What became of one uri, or would."""

    uri = serializers.CharField()
    contentLength = serializers.IntegerField()  # noqa: N815  # a name of the wire
    outcome = serializers.ChoiceField(choices=["undeleted", "replaced", "attached", "unchanged", "refused"])
    id = serializers.UUIDField(required=False, help_text="Of the artifact that lives now (one uri only).")
    reason = serializers.CharField(required=False)


class UndeletionSerializer(serializers.Serializer[object]):
    """A page; `next` is the `after` of the next one, absent at the end."""

    items = UndeletedSerializer(many=True)
    next = serializers.CharField(required=False)


class RetireSerializer(serializers.Serializer[object]):
    """What to retire; without `apply` it is only counted."""

    namespace = serializers.CharField(max_length=512, trim_whitespace=False)
    apply = serializers.BooleanField(default=False)
    reason = serializers.CharField(default="", allow_blank=True, max_length=200, help_text="Why; needed to apply.")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if attrs["apply"] and not attrs["reason"]:
            raise serializers.ValidationError({"reason": ["say why these copies shall go"]})
        return attrs


class RetirePreviewSerializer(serializers.Serializer[object]):
    """What is stored under the namespace, and what of it this site's policy wants and therefore stays."""

    namespace = serializers.CharField()
    files = serializers.IntegerField()
    bytes = serializers.IntegerField()
    wantedFiles = serializers.IntegerField()  # noqa: N815  # a name of the wire
    wantedBytes = serializers.IntegerField()  # noqa: N815  # a name of the wire
    brake = serializers.CharField(
        help_text="why the brake would stop a run before its first copy; empty if it would not"
    )


class RetireRunSerializer(serializers.ModelSerializer[RetireRun]):
    """A run: what was meant, how far it is. `files` were listed so far, all when `isListed`."""

    reason = serializers.CharField()
    startedBy = serializers.CharField(source="started_by")  # noqa: N815  # a name of the wire
    isListed = serializers.BooleanField(source="is_listed")  # noqa: N815  # a name of the wire
    droppedFiles = serializers.IntegerField(source="dropped_files")  # noqa: N815  # a name of the wire
    droppedBytes = serializers.IntegerField(source="dropped_bytes")  # noqa: N815  # a name of the wire
    refusedFiles = serializers.IntegerField(source="refused_files")  # noqa: N815  # a name of the wire
    goneFiles = serializers.IntegerField(source="gone_files")  # noqa: N815  # a name of the wire
    startedAt = serializers.DateTimeField(source="started_at")  # noqa: N815  # a name of the wire
    finishedAt = serializers.DateTimeField(source="finished_at", allow_null=True)  # noqa: N815  # a name of the wire

    class Meta:
        model = RetireRun
        fields = [
            "id",
            "namespace",
            "reason",
            "startedBy",
            "state",
            "isListed",
            "files",
            "bytes",
            "droppedFiles",
            "droppedBytes",
            "refusedFiles",
            "goneFiles",
            "startedAt",
            "finishedAt",
        ]


class RetireRunsSerializer(serializers.Serializer[object]):
    """The newest runs."""

    runs = RetireRunSerializer(many=True)


class RefusalSerializer(serializers.ModelSerializer[CopyRelease]):
    """A copy that stays, and why."""

    artifactId = serializers.UUIDField(source="artifact_id")  # noqa: N815  # a name of the wire
    contentLength = serializers.IntegerField(source="content_length")  # noqa: N815  # a name of the wire

    class Meta:
        model = CopyRelease
        fields = ["uri", "artifactId", "contentLength", "reason", "detail"]


class RefusalsQuerySerializer(serializers.Serializer[object]):
    """A page of refusals."""

    after = serializers.CharField(required=False, default="", allow_blank=True, max_length=512, trim_whitespace=False)
    limit = serializers.IntegerField(default=MAX_PAGE, min_value=1, max_value=MAX_PAGE)


class RefusalsSerializer(serializers.Serializer[object]):
    """A page by uri; `next` is the `after` of the next one, absent at the end."""

    items = RefusalSerializer(many=True)
    next = serializers.CharField(required=False)
