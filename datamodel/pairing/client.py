"""The accepting side's one call: to the address in the code, and nowhere else."""

from __future__ import annotations

import json

from django.conf import settings
from django.db import connection

from datamodel import outbound
from datamodel.errors import (
    InvalidRequestError,
    RemoteProtocolError,
    RemoteRefusedError,
    RemoteUnavailableError,
)
from datamodel.models import RemoteInventory
from datamodel.pairing import operations, rules
from datamodel.pairing.rules import Code, MalformedError
from datamodel.remotes import checked_url
from datamodel.statements import UnbelievableStatementError

PROOF_HEADER = "X-Pairing-Proof"
_ANSWER_BYTES = 64 * 1024


def accept(*, code: str, name: str) -> RemoteInventory:
    """Pair with the inventory that made this code; it is known here by this name. May be repeated until the code expires.

    Raises `InvalidRequestError`, `StateConflictError`, `RemoteUnavailableError`, `RemoteRefusedError`, `RemoteProtocolError`.
    """
    operations.check_name(name)
    try:
        parsed = Code.parse(code)
    except MalformedError as error:
        raise InvalidRequestError(str(error)) from None
    url = checked_url(parsed.url)
    body = json.dumps(operations.introduce().as_json()).encode()
    proof = rules.proof(rules.proof_key(parsed.secret), parsed.invitation_id, body)
    connection.close()
    answer = _post(f"{url}/pairings/{parsed.invitation_id}/redemption", body, proof)
    try:
        return operations.complete(code=parsed, name=name, answer=answer)
    except (MalformedError, UnbelievableStatementError) as error:
        raise RemoteProtocolError(f"{url} is not believed: {error}") from None


def _post(url: str, body: bytes, proof: str) -> str:
    headers = {"Content-Type": "application/json", "User-Agent": "storage-inventory", PROOF_HEADER: proof}
    seconds = float(settings.INVENTORY_REMOTE_TIMEOUT_SECONDS)
    with outbound.pool_manager() as pool:
        answer = outbound.fetch(
            pool, "POST", url, headers=headers, seconds=seconds, most_bytes=_ANSWER_BYTES, body=body
        )
    if answer.status == 200:
        return answer.body.decode(errors="replace")
    said = f"{url} answered {answer.status}: {_detail(answer.body)}"
    raise (RemoteUnavailableError if answer.status >= 500 else RemoteRefusedError)(said)


def _detail(answer: bytes) -> str:
    try:
        return str(json.loads(answer)["detail"])[:300]
    except (ValueError, KeyError, TypeError):
        return "without a reason that can be understood"
