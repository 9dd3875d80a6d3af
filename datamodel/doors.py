"""How plain views declare by which rule they open; a test asserts that every address does, or is on the list of public ones.

REST framework's views say the same by their attributes `grant` and `is_filtered` (`auth_drf.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import wraps
from typing import Any, TypeVar, cast

from django.http import HttpRequest
from django.http.response import HttpResponseBase

from datamodel.auth import caller_of
from datamodel.permissions import Grant, require, require_everything, require_somewhere

View = TypeVar("View", bound=Callable[..., HttpResponseBase])


class Extent(Enum):
    """For what a door needs its right."""

    EVERYTHING = "for everything"
    SOMETHING = "for something; it shows and does only what the right reaches"
    EACH = "for each uri, as the view itself asks"


@dataclass(frozen=True, slots=True)
class DoorRule:
    """What opens a door."""

    grants: tuple[Grant, ...]
    extent: Extent


def guarded(grant: Grant) -> Callable[[View], View]:
    """The caller must have the right for everything."""
    return _door(DoorRule((grant,), Extent.EVERYTHING), lambda request: require(caller_of(request), grant))


def unlimited(view: View) -> View:
    """The caller must have every right there is, for everything: what decides who is trusted."""
    return _door(DoorRule(tuple(Grant), Extent.EVERYTHING), lambda request: require_everything(caller_of(request)))(
        view
    )


def filtered(grant: Grant) -> Callable[[View], View]:
    """The caller must have the right for something; the view keeps to what `permissions.reach` says, or requires it by uri."""
    return _door(DoorRule((grant,), Extent.SOMETHING), lambda request: require_somewhere(caller_of(request), grant))


def decides(*grants: Grant) -> Callable[[View], View]:
    """The view asks `permissions.require` itself: what it needs depends on the request."""

    def declare(view: View) -> View:
        view.door_rule = DoorRule(grants, Extent.EACH)  # type: ignore[attr-defined]  # read by `rule_of`
        return view

    return declare


def rule_of(view: object) -> DoorRule | None:
    """What a view has declared."""
    cls = getattr(view, "cls", None)
    if hasattr(cls, "grant"):
        extent = Extent.SOMETHING if getattr(cls, "is_filtered", False) else Extent.EVERYTHING
        return DoorRule((cast("Any", cls).grant,), extent)
    return getattr(view, "door_rule", None)


def _door(rule: DoorRule, check: Callable[[HttpRequest], None]) -> Callable[[View], View]:
    def declare(view: View) -> View:
        @wraps(view)
        def checked(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:  # as Django calls it
            check(request)
            return view(request, *args, **kwargs)

        checked.door_rule = rule  # type: ignore[attr-defined]  # read by `rule_of`
        return cast("View", checked)

    return declare
