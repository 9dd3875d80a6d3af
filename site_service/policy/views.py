"""The policy over HTTP, for operators: list, set and remove rules."""

from __future__ import annotations

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from datamodel.errors import InvalidRequestError
from datamodel.permissions import Grant
from datamodel.uris import Namespace
from site_service.policy.models import SyncPolicy
from site_service.policy.nudge import fetch_the_past
from site_service.policy.operations import PolicyChange, remove_policy, set_policy
from site_service.policy.schema import PolicyChangeSerializer, PolicyRuleSerializer, PolicySerializer


class PolicyView(APIView):
    """What this site wants of what the federation has: one rule per namespace, the longest one decides."""

    grant = Grant.OPERATE

    @extend_schema(operation_id="policy_list", responses=PolicySerializer)
    def get(self, request: Request) -> Response:
        """All rules, by namespace."""
        del request
        rules = SyncPolicy.objects.values("namespace", "wanted", "priority", "note")
        return Response({"rules": list(rules)})

    @extend_schema(operation_id="policy_set", request=PolicyRuleSerializer, responses=PolicyChangeSerializer)
    def put(self, request: Request) -> Response:
        """Make or change the rule of a namespace; a repeat changes nothing."""
        rule = PolicyRuleSerializer(data=request.data)
        rule.is_valid(raise_exception=True)
        values = rule.validated_data
        change = set_policy(
            namespace=Namespace.parse(values["namespace"]),
            wanted=values["wanted"],
            priority=values["priority"],
            note=values.get("note"),
        )
        fetch_the_past(change)
        return Response(_body(change))

    @extend_schema(
        operation_id="policy_remove",
        parameters=[OpenApiParameter("namespace", str, required=True)],
        responses={200: PolicyChangeSerializer},
    )
    def delete(self, request: Request) -> Response:
        """Remove the rule of a namespace; a repeat changes nothing."""
        namespace = request.query_params.get("namespace")
        if not namespace:
            raise InvalidRequestError("name the rule to remove: DELETE /policy?namespace=cadc:CFHT/")
        change = remove_policy(namespace=Namespace.parse(namespace))
        fetch_the_past(change)
        return Response(_body(change))


def _body(change: PolicyChange) -> dict[str, object]:
    return {
        "changed": change.is_changed,
        "widened": [name.value for name in change.widened],
        "narrowed": [name.value for name in change.narrowed],
        "dropped": change.dropped,
    }
