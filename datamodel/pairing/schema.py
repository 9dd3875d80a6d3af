"""OpenAPI of pairing."""

from __future__ import annotations

from typing import Any

TAGS = {"pairing": "Who is trusted: other inventories, paired by one-time codes."}

_TEXT = {"type": "string"}
_NAME = {"type": "string", "minLength": 1, "maxLength": 64, "description": "What the other one is called here."}
_KEYS = {"$ref": "#/components/schemas/KeySet/properties/keys"}
_PEER = {"$ref": "#/components/schemas/PairedInventory"}
_ALL = "; for whoever may do everything"


def _object(properties: dict[str, Any], *optional: str) -> dict[str, Any]:
    return {
        "type": "object",
        "required": [name for name in properties if name not in optional],
        "properties": properties,
    }


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _post(name: str, summary: str, asked: dict[str, Any], responses: dict[str, Any]) -> dict[str, Any]:
    return {
        "operationId": name,
        "tags": ["pairing"],
        "summary": summary,
        "requestBody": {"required": True, "content": _json(asked)},
        "responses": responses,
    }


_INVITED = _object(
    {
        "code": {**_TEXT, "description": "Given once; whoever has it can be paired with us."},
        "invitation": {"type": "string", "format": "uuid"},
        "expiresAt": {"type": "string", "format": "date-time"},
    }
)
_INVITATION = _object(
    {
        "name": _NAME,
        "role": {"enum": ["site", "global"], "description": "Of the other one, which is not ours."},
        "lifetimeSeconds": {"type": "number", "exclusiveMinimum": 0, "maximum": 604800, "default": 3600},
    },
    "lifetimeSeconds",
)
_INTRODUCTION = _object(
    {
        "inventoryId": {"type": "string", "format": "uuid"},
        "role": {"enum": ["site", "global"]},
        "name": _TEXT,
        "url": {"type": "string", "format": "uri"},
        "resourceID": {**_TEXT, "description": "Of a site."},
        "keys": _KEYS,
    },
    "name",
    "resourceID",
)
_REDEMPTION = {
    **_post(
        "redeem_pairing",
        "The accepting inventory introduces itself; for whoever knows the secret of the code",
        _INTRODUCTION,
        {
            "200": {
                "description": "Our own introduction, signed with the key whose thumbprint is in the code (JWS).",
                "content": {"application/jose": {"schema": _TEXT}},
            }
        },
    ),
    "security": [{}],
    "parameters": [
        {"name": "invitation", "in": "path", "required": True, "schema": {"type": "string", "format": "uuid"}},
        {
            "name": "X-Pairing-Proof",
            "in": "header",
            "required": True,
            "schema": _TEXT,
            "description": "HMAC-SHA256, in hex, of the body, with a key made of the secret.",
        },
    ],
}

PATHS: dict[str, dict[str, Any]] = {
    "/pairings": {
        "get": {
            "operationId": "list_pairings",
            "tags": ["pairing"],
            "summary": f"Every other inventory, and open codes{_ALL}",
            "responses": {
                "200": {
                    "description": "By name.",
                    "content": _json(_object({"items": {"type": "array", "items": _PEER}})),
                }
            },
        },
        "post": _post(
            "invite_to_pair",
            f"A one-time code for another inventory{_ALL}",
            _INVITATION,
            {"201": {"description": "The code.", "content": _json(_INVITED)}},
        ),
    },
    "/pairings/acceptances": {
        "post": _post(
            "accept_pairing",
            f"This inventory accepts a code; repeatable until it expires{_ALL}",
            _object({"code": _TEXT, "name": _NAME}),
            {"200": {"description": "Paired.", "content": _json(_PEER)}},
        )
    },
    "/pairings/revocations": {
        "post": _post(
            "revoke_pairing",
            f"Another inventory loses everything at once{_ALL}",
            _object({"name": _NAME, "reason": {"type": "string", "minLength": 1}}),
            {"200": {"description": "Revoked.", "content": _json(_PEER)}},
        )
    },
    "/pairings/{invitation}/redemption": {"post": _REDEMPTION},
}

SCHEMAS: dict[str, dict[str, Any]] = {
    "PairedInventory": _object(
        {
            "name": _TEXT,
            "role": {"enum": ["site", "global"]},
            "state": {"enum": ["paired", "unpaired", "disabled", "revoked", "invited"]},
            "url": _TEXT,
            "inventoryId": {"type": ["string", "null"], "format": "uuid"},
            "keys": {"type": "integer", "description": "How many of its keys are trusted."},
            "since": {"type": ["string", "null"], "format": "date-time"},
        }
    )
}
