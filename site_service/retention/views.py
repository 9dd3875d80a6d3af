"""Undelete and retire over HTTP."""

from __future__ import annotations

import uuid
from typing import Any, cast

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from datamodel.errors import RouteNotFoundError
from datamodel.permissions import Caller, Grant, require
from datamodel.positions import POSITION_HEADER, position_of
from datamodel.uris import ArtifactUri, Namespace
from harvest.tasks import send_task
from site_service.retention import actors, queries, retire, undelete
from site_service.retention.models import RetireRun
from site_service.retention.rules import ReleaseState
from site_service.retention.schema import (
    RefusalSerializer,
    RefusalsQuerySerializer,
    RefusalsSerializer,
    RetirePreviewSerializer,
    RetireRunSerializer,
    RetireRunsSerializer,
    RetireSerializer,
    UndeleteSerializer,
    UndeletionSerializer,
)
from site_service.retention.undelete import OUTCOMES, Undeleted

_RUNS = 20
_ADVANCE = "site_service.retention.tasks.advance_retirement"


class UndeleteView(APIView):
    """What was deleted or replaced here lives again."""

    grant = Grant.WRITE
    is_filtered = True

    @extend_schema(operation_id="undelete", request=UndeleteSerializer, responses=UndeletionSerializer)
    def post(self, request: Request) -> Response:
        """Undelete one uri, or the next page of a namespace; a namespace can be previewed first. Repeatable."""
        asked = UndeleteSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        values = asked.validated_data
        caller = cast("Caller", request.auth)
        if "uri" in values:
            require(caller, self.grant, ArtifactUri.parse(values["uri"]))
            return _one(values)
        require(caller, self.grant, Namespace.parse(values["namespace"]))
        return _page(values)


class RetireView(APIView):
    """Local copies under a namespace go, as far as the globals allow."""

    grant = Grant.OPERATE

    @extend_schema(
        operation_id="retire",
        tags=["retire"],
        request=RetireSerializer,
        responses={200: RetirePreviewSerializer, 202: RetireRunSerializer},
    )
    def post(self, request: Request) -> Response:
        """Count what is stored under a namespace; or, with `apply`, begin to drop it: a run, which goes on by itself.

        While a run over the namespace is not over, the answer is that one.
        """
        asked = RetireSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        values = asked.validated_data
        namespace = Namespace.parse(values["namespace"])
        if not values["apply"]:
            found = retire.preview(namespace)
            counts = {"files": found.files, "bytes": found.bytes}
            wanted = {"wantedFiles": found.wanted_files, "wantedBytes": found.wanted_bytes}
            return Response({"namespace": namespace.value} | counts | wanted | {"brake": found.brake})
        caller = cast("Caller", request.auth)
        run = retire.begin_run(namespace=namespace, reason=values["reason"], started_by=caller.name)
        send_task(_ADVANCE)
        return Response(RetireRunSerializer(run).data, status=202)

    @extend_schema(operation_id="retire_runs", tags=["retire"], responses=RetireRunsSerializer)
    def get(self, request: Request) -> Response:
        """The newest runs."""
        del request
        return Response({"runs": RetireRunSerializer(queries.newest_runs(_RUNS), many=True).data})


class RetireRunView(APIView):
    """One run."""

    grant = Grant.OPERATE

    @extend_schema(operation_id="retire_run", tags=["retire"], responses=RetireRunSerializer)
    def get(self, request: Request, run: uuid.UUID) -> Response:
        """How far it is."""
        del request
        return Response(RetireRunSerializer(_run(run)).data)

    @extend_schema(operation_id="cancel_retire", tags=["retire"], responses={200: RetireRunSerializer})
    def delete(self, request: Request, run: uuid.UUID) -> Response:
        """Nothing more goes; what was allowed and has not gone is given back. Repeatable."""
        del request
        cancelled = retire.cancel_run(run_id=_run(run).id)
        send_task(_ADVANCE)
        return Response(RetireRunSerializer(cancelled).data)


class RefusalsView(APIView):
    """What a run could not drop."""

    grant = Grant.OPERATE

    @extend_schema(
        operation_id="retire_refusals",
        tags=["retire"],
        parameters=[RefusalsQuerySerializer],
        responses=RefusalsSerializer,
    )
    def get(self, request: Request, run: uuid.UUID) -> Response:
        """Copies that stay, each with the reason, by uri."""
        asked = RefusalsQuerySerializer(data=request.query_params)
        asked.is_valid(raise_exception=True)
        limit, after = asked.validated_data["limit"], asked.validated_data["after"]
        page = queries.releases_of(_run(run).id, state=ReleaseState.REFUSED, after=after, limit=limit)
        following = {"next": page[-1].uri} if len(page) == limit else {}
        return Response({"items": RefusalSerializer(page, many=True).data} | following)


def _run(run_id: uuid.UUID) -> RetireRun:
    found = queries.run_by_id(run_id)
    if found is None:
        raise RouteNotFoundError(f"no run of retire has the id {run_id}")
    return found


def _one(values: dict[str, Any]) -> Response:
    uri = ArtifactUri.parse(values["uri"])
    recorded = undelete.undelete_uri(uri=uri, as_of=values["asOf"], replaces=values["replace"])
    artifact = recorded.artifact
    actors.ring_facts([artifact.id])
    item = {"uri": artifact.uri, "contentLength": artifact.content_length, "outcome": OUTCOMES[recorded.meaning]}
    response = Response({"items": [item | {"id": artifact.id}]})
    response[POSITION_HEADER] = str(position_of(recorded.txid))
    return response


def _page(values: dict[str, Any]) -> Response:
    page = undelete.undelete_namespace(
        namespace=Namespace.parse(values["namespace"]),
        as_of=values["asOf"],
        replaces=values["replace"],
        after=values["after"],
        limit=values["limit"],
        is_preview=values["preview"],
    )
    return Response({"items": [_item(item) for item in page.items]} | ({"next": page.next} if page.next else {}))


def _item(item: Undeleted) -> dict[str, object]:
    body = {"uri": item.uri, "contentLength": item.size, "outcome": item.outcome}
    return body | ({"reason": item.reason} if item.reason else {})
