"""Alarms over HTTP, for operators and their programs; they are acknowledged and cleared in the admin."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from datamodel.alarms import queries
from datamodel.alarms.schema import AlarmSerializer, AlarmsQuerySerializer, AlarmsSerializer
from datamodel.permissions import Grant


class AlarmsView(APIView):
    """What an operator must know."""

    grant = Grant.OPERATE

    @extend_schema(
        operation_id="alarms", tags=["alarms"], parameters=[AlarmsQuerySerializer], responses=AlarmsSerializer
    )
    def get(self, request: Request) -> Response:
        """Alarms in order of their numbers, by page; the open ones unless asked otherwise."""
        asked = AlarmsQuerySerializer(data=request.query_params)
        asked.is_valid(raise_exception=True)
        values: dict[str, Any] = asked.validated_data
        rows = queries.listed(state=values["state"], kind=values.get("kind", ""), after=values["after"])
        page = list(rows[: values["limit"]])
        is_last = len(page) < values["limit"]
        following = None if is_last else f"?{urlencode({**values, 'after': page[-1].pk})}"
        return Response({"items": AlarmSerializer(page, many=True).data, "next": following})
