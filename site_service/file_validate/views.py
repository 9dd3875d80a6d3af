"""The report over HTTP, for operators; nothing is applied here."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from datamodel.permissions import Grant
from site_service.file_validate import queries
from site_service.file_validate.models import ValidationFinding, ValidationRun
from site_service.file_validate.schema import (
    FindingSerializer,
    FindingsQuerySerializer,
    FindingsSerializer,
    RunSerializer,
    RunsSerializer,
)

_RUNS = 20


class FindingsView(APIView):
    """Where inventory and storage differ."""

    grant = Grant.OPERATE

    @extend_schema(
        operation_id="validation_findings",
        tags=["validation"],
        parameters=[FindingsQuerySerializer],
        responses=FindingsSerializer,
    )
    def get(self, request: Request) -> Response:
        """Findings in order of their numbers, by page."""
        asked = FindingsQuerySerializer(data=request.query_params)
        asked.is_valid(raise_exception=True)
        values: dict[str, Any] = asked.validated_data
        rows = queries.findings(
            state=values["state"],
            label=values.get("label", ""),
            policy=values.get("policy", ""),
            after=values["after"],
        )
        page: list[ValidationFinding] = list(rows[: values["limit"]])
        is_last = len(page) < values["limit"]
        following = None if is_last else f"?{urlencode({**values, 'after': page[-1].pk})}"
        return Response({"items": FindingSerializer(page, many=True).data, "next": following})


class RunsView(APIView):
    """How far validation is."""

    grant = Grant.OPERATE

    @extend_schema(operation_id="validation_runs", tags=["validation"], responses=RunsSerializer)
    def get(self, request: Request) -> Response:
        """The newest runs."""
        del request
        newest = ValidationRun.objects.order_by("-started_at")[:_RUNS]
        return Response({"runs": RunSerializer(newest, many=True).data})
