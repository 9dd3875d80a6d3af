"""Several copies in one answer: Link headers (RFC 6249) and Metalink documents (RFC 5854)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from xml.sax.saxutils import escape, quoteattr

from datamodel.representation import checksums_of
from datamodel.rules import ArtifactRow
from datamodel.uris import ArtifactUri
from global_inventory.locate.operations import Offer

MEDIA_TYPE = "application/metalink4+xml"
# Above this a header block grows beyond what proxies take; the Metalink document has all copies.
_LINKED_COPIES = 8
_NOT_IN_XML = re.compile(r"[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def link_header(offers: Sequence[Offer], *, metalink_url: str) -> str:
    """Every copy beside the first as a duplicate, best first, and where all of it is described."""
    links = [f"<{offer.url}>; rel=duplicate; pri={place}" for place, offer in enumerate(offers[1:_LINKED_COPIES], 2)]
    links.append(f'<{metalink_url}>; rel=describedby; type="{MEDIA_TYPE}"')
    return ", ".join(links)


def metalink_document(artifact: ArtifactRow, offers: Sequence[Offer]) -> str:
    """One file with its size, digests and every URL by priority."""
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        '<metalink xmlns="urn:ietf:params:xml:ns:metalink">',
        f"<file name={quoteattr(safe_name(ArtifactUri(artifact.uri)))}>",
        f"<identity>{escape(artifact.uri)}</identity>",
        f"<size>{artifact.content_length}</size>",
        *(f'<hash type="{checksum.algorithm}">{checksum.hex}</hash>' for checksum in checksums_of(artifact)),
        *(f'<url priority="{place}">{escape(offer.url)}</url>' for place, offer in enumerate(offers, 1)),
        "</file>",
        "</metalink>",
    ]
    return "\n".join(lines) + "\n"


def safe_name(uri: ArtifactUri) -> str:
    """The file name without what XML cannot hold or a receiver must refuse (RFC 5854, 4.1.2.1)."""
    name = _NOT_IN_XML.sub("_", uri.filename).replace("\\", "_")
    return "_" if name in {"", ".", ".."} else name
