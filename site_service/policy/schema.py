"""The JSON forms of the policy, for validation and for the OpenAPI schema."""

from __future__ import annotations

from rest_framework import serializers

TAGS = {"policy": "What this site wants, by namespace."}


class PolicyRuleSerializer(serializers.Serializer[object]):
    """One rule: the longest namespace that a uri lies under decides; higher priorities are pulled earlier."""

    namespace = serializers.CharField(max_length=512, trim_whitespace=False)
    wanted = serializers.BooleanField(default=True)
    priority = serializers.IntegerField(default=0, min_value=-(2**31), max_value=2**31 - 1)
    note = serializers.CharField(required=False, max_length=200, allow_blank=True)


class PolicySerializer(serializers.Serializer[object]):
    """All rules, by namespace."""

    rules = PolicyRuleSerializer(many=True)


class PolicyChangeSerializer(serializers.Serializer[object]):
    """What a change did: the namespaces whose verdict turned, and how many unstored artifact rows were dropped."""

    changed = serializers.BooleanField()
    widened = serializers.ListField(child=serializers.CharField())
    narrowed = serializers.ListField(child=serializers.CharField())
    dropped = serializers.IntegerField()
