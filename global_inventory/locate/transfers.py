"""VOSpace 2.1 transfer documents (reference 4.2, 4.3, 13): read with every entity refused, written as clients expect."""

from __future__ import annotations

from dataclasses import dataclass
from xml.etree.ElementTree import Element, ParseError
from xml.sax.saxutils import escape, quoteattr

from defusedxml import ElementTree, common

from datamodel.errors import InvalidRequestError
from datamodel.uris import ArtifactUri
from global_inventory.locate.operations import Offer
from global_inventory.locate.signing import file_url
from global_inventory.sites.rules import Direction

MAX_DOCUMENT_BYTES = 64 * 1024
_NAMESPACE = "http://www.ivoa.net/xml/VOSpace/v2.0"
_CORE = "ivo://ivoa.net/vospace/core"
_SSO = "ivo://ivoa.net/sso"
_DIRECTIONS = {"pullFromVoSpace": Direction.GET, "pushToVoSpace": Direction.PUT}
_WORDS = {direction: word for word, direction in _DIRECTIONS.items()}
# Protocol → its direction and whether it asks for TLS.
_PROTOCOLS = {
    f"{_CORE}#httpsget": (Direction.GET, True),
    f"{_CORE}#httpget": (Direction.GET, False),
    f"{_CORE}#httpsput": (Direction.PUT, True),
    f"{_CORE}#httpput": (Direction.PUT, False),
}
# A caller who sends credentials of its own gets the plain address; certificates and cookies mean nothing to our sites, so
# whoever asks for these gets what an anonymous caller gets: a signed URL, which needs no other proof.
_OWN_CREDENTIALS = frozenset(
    {f"{_SSO}#token", f"{_SSO}#BasicAA", "http://www.w3.org/Protocols/HTTP/1.0/spec.html#BasicAA"}
)
_SIGNED = frozenset({f"{_SSO}#tls-with-certificate", f"{_SSO}#cookie", f"{_SSO}#anon"})


@dataclass(frozen=True, slots=True)
class Protocol:
    """One way of transfer that the client offers to use; `security` is None for an anonymous one."""

    uri: str
    security: str | None = None


@dataclass(frozen=True, slots=True)
class Transfer:
    """A request for negotiation."""

    target: ArtifactUri
    direction: Direction
    protocols: tuple[Protocol, ...]


def parse_transfer(document: bytes) -> Transfer:
    """Raises `InvalidRequestError` or `InvalidUriError`; protocols and elements that mean nothing here are let through."""
    root = _root_of(document)
    targets = [(child.text or "").strip() for child in root.findall(f"{{{_NAMESPACE}}}target")]
    if len(targets) != 1:
        raise InvalidRequestError(f"a transfer has exactly one target; this one has {len(targets)}")
    direction = (root.findtext(f"{{{_NAMESPACE}}}direction") or "").strip()
    if direction not in _DIRECTIONS:
        raise InvalidRequestError(f"the direction must be pullFromVoSpace or pushToVoSpace; it is {direction!r}")
    protocols = tuple(_protocol(child) for child in root.findall(f"{{{_NAMESPACE}}}protocol"))
    return Transfer(ArtifactUri.parse(targets[0]), _DIRECTIONS[direction], protocols)


def transfer_document(transfer: Transfer, offers: tuple[Offer, ...]) -> str:
    """The answer: for each site in order each protocol that fits it, in the order asked."""
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f'<vos:transfer xmlns:vos="{_NAMESPACE}" version="2.1">',
        f"  <vos:target>{escape(transfer.target.value)}</vos:target>",
        f"  <vos:direction>{_WORDS[transfer.direction]}</vos:direction>",
    ]
    for offer in offers:
        for protocol in transfer.protocols:
            if (endpoint := _endpoint(transfer, protocol, offer)) is not None:
                lines += _protocol_lines(protocol, endpoint)
    lines += ["  <vos:keepBytes>true</vos:keepBytes>", "</vos:transfer>"]
    return "\n".join(lines) + "\n"


def fitting_offers(transfer: Transfer, offers: tuple[Offer, ...]) -> tuple[Offer, ...]:
    """The offers that at least one of the protocols asked for can use."""
    return tuple(o for o in offers if any(_endpoint(transfer, p, o) is not None for p in transfer.protocols))


def _root_of(document: bytes) -> Element:
    if not document.strip():
        raise InvalidRequestError("the body is empty; send a VOSpace transfer document or JSON")
    try:
        root = ElementTree.fromstring(document, forbid_dtd=True)
    except (ParseError, ValueError, LookupError, common.DefusedXmlException) as error:
        raise InvalidRequestError(f"the body is not an XML document that can be read: {error}") from error
    if root.tag != f"{{{_NAMESPACE}}}transfer":
        raise InvalidRequestError(f"the root must be transfer of the namespace {_NAMESPACE}; it is {root.tag}")
    return root


def _protocol(element: Element) -> Protocol:
    method = element.find(f"{{{_NAMESPACE}}}securityMethod")
    return Protocol((element.get("uri") or "").strip(), method.get("uri") if method is not None else None)


def _endpoint(transfer: Transfer, protocol: Protocol, offer: Offer) -> str | None:
    known = _PROTOCOLS.get(protocol.uri)
    if known is None or known[0] is not transfer.direction:
        return None
    # Clients ask for https only (reference 8.6); a site that has no TLS is offered all the same.
    if offer.site.url.startswith("https:") and not known[1]:
        return None
    if protocol.security in _OWN_CREDENTIALS:
        return file_url(offer.site, transfer.target.value)
    is_signed = protocol.security is None or protocol.security in _SIGNED or protocol.security.endswith("#anon")
    return offer.url if is_signed else None


def _protocol_lines(protocol: Protocol, endpoint: str) -> list[str]:
    lines = [f"  <vos:protocol uri={quoteattr(protocol.uri)}>", f"    <vos:endpoint>{escape(endpoint)}</vos:endpoint>"]
    if protocol.security is not None:
        lines.append(f"    <vos:securityMethod uri={quoteattr(protocol.security)}/>")
    return [*lines, "  </vos:protocol>"]
