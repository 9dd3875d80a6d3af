"""Undelete over HTTP."""

from __future__ import annotations

from typing import Any, cast

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from datamodel.permissions import Caller, Grant, require
from datamodel.positions import POSITION_HEADER, position_of
from datamodel.uris import ArtifactUri, Namespace
from site_service.retention import actors, undelete
from site_service.retention.schema import UndeleteSerializer, UndeletionSerializer
from site_service.retention.undelete import OUTCOMES, Undeleted


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
