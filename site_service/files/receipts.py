"""The receipt of a PUT: what is stored, in a statement that this site has signed and that its `/pubkey` verifies."""

from __future__ import annotations

from datetime import UTC, datetime

from django.conf import settings
from django.http import HttpRequest, HttpResponse

from datamodel import keys
from datamodel.errors import InvalidRequestError
from datamodel.models import StorageLocation
from datamodel.positions import cached_identity
from datamodel.preauth import SigningKey
from datamodel.representation import checksums_of
from datamodel.rules import ArtifactRow
from datamodel.statements import signed_statement
from datamodel.wire import time_text

RECEIPT_KIND = "storage-inventory-receipt+jwt"
_CONTENT_TYPE = "application/jose"
_WANTED = {"?1": True, "1": True, "?0": False, "0": False}


def wanted_key(request: HttpRequest) -> SigningKey | None:
    """What to sign with if `Want-Receipt: ?1` asks for a receipt; called before any byte is taken.

    Raises `InvalidRequestError` for another value, `NotConfiguredError` when this site has no key: a receipt is not promised in vain.
    """
    text = request.headers.get("Want-Receipt")
    if text is None:
        return None
    if text.strip() not in _WANTED:
        raise InvalidRequestError(f"Want-Receipt must be ?1 or ?0; it is {text!r}")
    return keys.signing_key_cache.get() if _WANTED[text.strip()] else None


def add_receipt(response: HttpResponse, artifact: ArtifactRow, key: SigningKey) -> HttpResponse:
    """The receipt becomes the body."""
    response.content = signed_statement(key, _claims(artifact), kind=RECEIPT_KIND).encode()
    response["Content-Type"] = _CONTENT_TYPE
    response["Content-Length"] = str(len(response.content))
    return response


def _claims(artifact: ArtifactRow) -> dict[str, object]:
    stored_at = StorageLocation.objects.filter(artifact_id=artifact.id).values_list("stored_at", flat=True).first()
    return {
        "iss": settings.INVENTORY_PUBLIC_URL,
        "iat": int(datetime.now(UTC).timestamp()),
        "uri": artifact.uri,
        "id": str(artifact.id),
        "contentLength": artifact.content_length,
        "digests": {checksum.algorithm: checksum.hex for checksum in checksums_of(artifact)},
        "contentLastModified": time_text(artifact.content_last_modified),
        "siteId": str(cached_identity.get().inventory_id),
        "resourceID": settings.INVENTORY_RESOURCE_ID,
        # Somebody may have replaced it in this moment; then it was stored when it was born.
        "storedAt": time_text(stored_at or artifact.content_last_modified),
    }
