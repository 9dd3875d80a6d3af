"""What a site of a test wants; a test sets `wishes` to change its policy."""

from __future__ import annotations

from dataclasses import dataclass, field

from datamodel.uris import Namespace
from harvest.rules import Selection


@dataclass
class Wishes:
    """Wanted prefixes, and those left out of them."""

    wanted: list[str] = field(default_factory=lambda: ["cadc:"])
    excluded: list[str] = field(default_factory=list)


wishes = Wishes()


def wished() -> Selection:
    wanted, excluded = tuple(wishes.wanted), tuple(wishes.excluded)
    return Selection(
        wanted=tuple(Namespace.parse(text) for text in wanted),
        is_wanted=lambda uri: uri.startswith(wanted) and not uri.startswith(excluded),
        rules=tuple((Namespace.parse(text), text in wanted) for text in (*wanted, *excluded)),
    )
