"""The two VOSI documents of the IVOA by which OpenCADC services and clients find and watch each other.

Reference `opencadc-storage-inventory`, 2.11, 8.4 and 13: the client wants the `xsi` prefix on the root, un-namespaced
children, and a bare `securityMethod` for callers without credentials (signed URLs are used without any).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from html import escape

FILES = "http://www.opencadc.org/std/storage#files-1.0"
LOCATE = "http://www.opencadc.org/std/storage#locate-1.0"
CAPABILITIES = "ivo://ivoa.net/std/VOSI#capabilities"
AVAILABILITY = "ivo://ivoa.net/std/VOSI#availability"

# The IVOA's word for HTTP Basic and the one that cadcutils looks for.
_SECURITY = (
    "ivo://ivoa.net/sso#token",
    "ivo://ivoa.net/sso#BasicAA",
    "http://www.w3.org/Protocols/HTTP/1.0/spec.html#BasicAA",
)
_OPEN = frozenset({CAPABILITIES, AVAILABILITY})


def availability_document(*, is_available: bool, note: str, up_since: datetime, client_address: str) -> str:
    """VOSIAvailability 1.0; the caller's address is told in a comment, as OpenCADC does."""
    since = up_since.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        '<vosi:availability xmlns:vosi="http://www.ivoa.net/xml/VOSIAvailability/v1.0">',
        f"  <vosi:available>{'true' if is_available else 'false'}</vosi:available>",
        f"  <vosi:upSince>{since}</vosi:upSince>",
        f"  <vosi:note>{_text(note)}</vosi:note>",
        *_client_comment(client_address),
        "</vosi:availability>",
    ]
    return "\n".join(lines) + "\n"


def capabilities_document(base_url: str, capabilities: Iterable[tuple[str, str]]) -> str:
    """VOSICapabilities 1.0 of (standard id, path below `base_url`) pairs; the two VOSI resources themselves are added."""
    entries = [*capabilities, (CAPABILITIES, "capabilities"), (AVAILABILITY, "availability")]
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        '<vosi:capabilities xmlns:vosi="http://www.ivoa.net/xml/VOSICapabilities/v1.0"',
        '    xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"',
        '    xmlns:vs="http://www.ivoa.net/xml/VODataService/v1.1">',
        *(line for standard_id, path in entries for line in _capability(standard_id, f"{base_url}/{path}")),
        "</vosi:capabilities>",
    ]
    return "\n".join(lines) + "\n"


def _capability(standard_id: str, url: str) -> Iterator[str]:
    yield f'  <capability standardID="{escape(standard_id)}">'
    yield '    <interface xsi:type="vs:ParamHTTP" role="std">'
    yield f'      <accessURL use="{"full" if standard_id in _OPEN else "base"}">{_text(url)}</accessURL>'
    yield "      <securityMethod/>"
    if standard_id not in _OPEN:
        yield from (f'      <securityMethod standardID="{escape(method)}"/>' for method in _SECURITY)
    yield "    </interface>"
    yield "  </capability>"


def _client_comment(address: str) -> Iterator[str]:
    try:
        yield f"  <!-- <clientip>{ipaddress.ip_address(address)}</clientip> -->"
    except ValueError:
        # Behind a unix socket there is no address.
        return


def _text(value: str) -> str:
    """Escaped, without the control characters that XML 1.0 cannot hold."""
    return escape("".join(character for character in value if character >= " " or character in "\t\n"))
