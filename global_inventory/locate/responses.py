"""Answers of negotiation: JSON, redirects with their links, and what HEAD says of an artifact."""

from __future__ import annotations

import json

from django.conf import settings
from django.http import HttpResponse
from django.utils.encoding import iri_to_uri

from datamodel.representation import checksums_of, content_disposition, set_artifact_headers, set_digests
from datamodel.rules import ArtifactRow
from datamodel.uris import ArtifactUri
from datamodel.wire import artifact_item, time_text
from global_inventory.locate.metalink import MEDIA_TYPE, link_header, metalink_document, safe_name
from global_inventory.locate.operations import Negotiated

# Signed URLs are the caller's own and do not last.
_PRIVATE = "private, no-store"


def json_response(text: str) -> HttpResponse:
    """JSON that no cache keeps."""
    response = HttpResponse(text, content_type="application/json")
    response["Cache-Control"] = _PRIVATE
    return response


def negotiated_json(negotiated: Negotiated) -> str:
    """One negotiation: what is known of the artifact, and every offer with its reason, best first."""
    known = artifact_item(negotiated.located.artifact) if negotiated.located is not None else {}
    urls = [{"url": offer.url, "site": offer.site.name, "reason": offer.reason} for offer in negotiated.offers]
    return json.dumps(
        {
            **known,
            "uri": negotiated.uri.value,
            "direction": negotiated.direction.value,
            "expiresAt": time_text(negotiated.expires_at),
            "urls": urls,
        }
    )


def get_redirect(negotiated: Negotiated, artifact: ArtifactRow, query: str) -> HttpResponse:
    """303 to the best copy; links to the others, and the digests that all of them share (RFC 6249)."""
    response = _redirect(303, negotiated, query)
    set_digests(response, checksums_of(artifact), _known(artifact))
    response["Link"] = link_header(negotiated.offers, metalink_url=metalink_url(negotiated.uri))
    response["Vary"] = "Accept"
    return response


def write_redirect(negotiated: Negotiated, query: str) -> HttpResponse:
    """307 to the best site: the method and the body go there."""
    return _redirect(307, negotiated, query)


def metalink_response(negotiated: Negotiated, artifact: ArtifactRow) -> HttpResponse:
    """The Metalink document of all copies."""
    response = HttpResponse(metalink_document(artifact, negotiated.offers), content_type=MEDIA_TYPE)
    response["Content-Disposition"] = content_disposition("attachment", f"{safe_name(negotiated.uri)}.meta4")
    response["Cache-Control"] = _PRIVATE
    response["Vary"] = "Accept"
    return response


def head_response(artifact: ArtifactRow) -> HttpResponse:
    """What a site's HEAD would say, from the rows known here (reference 2.3)."""
    response = HttpResponse()
    set_artifact_headers(response, artifact, _known(artifact))
    response["Content-Length"] = str(artifact.content_length)
    response["Content-Disposition"] = content_disposition("inline", ArtifactUri(artifact.uri).filename)
    return response


def _known(artifact: ArtifactRow) -> list[str]:
    return [checksum.algorithm for checksum in checksums_of(artifact)]


def metalink_url(uri: ArtifactUri) -> str:
    """Where the Metalink document of an artifact is."""
    return f"{settings.INVENTORY_PUBLIC_URL}/files/{uri.value.replace('%', '%25')}?format=metalink"


def _redirect(status: int, negotiated: Negotiated, query: str) -> HttpResponse:
    response = HttpResponse(status=status)
    del response["Content-Type"]
    url = negotiated.offers[0].url
    response["Location"] = f"{url}?{iri_to_uri(query)}" if query else url
    response["Content-Length"] = "0"
    response["Cache-Control"] = _PRIVATE
    return response
