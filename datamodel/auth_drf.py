"""REST framework's doors to `auth.py` and `permissions.py`; nothing is decided here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from rest_framework.authentication import BaseAuthentication
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from datamodel.auth import caller_of
from datamodel.permissions import Caller, Grant, require, require_somewhere

if TYPE_CHECKING:
    # `rest_framework.views` imports this module while it is being imported itself.
    from rest_framework.views import APIView


class InventoryAuthentication(BaseAuthentication):
    """`request.auth` becomes our `Caller`."""

    def authenticate(self, request: Request) -> tuple[Any, Caller]:
        caller = caller_of(request._request)
        return request._request.user if caller.method == "session" else None, caller


class GrantRequired(BasePermission):
    """A view names its grant in `grant` (default: read); `is_filtered`: for something, which the view keeps to.

    Raises what `permissions.require` raises.
    """

    def has_permission(self, request: Request, view: APIView) -> bool:
        caller, grant = cast("Caller", request.auth), getattr(view, "grant", Grant.READ)
        check = require_somewhere if getattr(view, "is_filtered", False) else require
        check(caller, grant)
        return True
