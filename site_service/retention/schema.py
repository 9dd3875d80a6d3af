"""The JSON forms of undeletion, for validation and for the OpenAPI schema."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

TAGS = {"undelete": "Deleted and replaced content that is kept lives again."}
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
