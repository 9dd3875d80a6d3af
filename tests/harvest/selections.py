"""What a site of a test wants."""

from __future__ import annotations

from datamodel.uris import Namespace
from harvest.rules import Selection

CADC = Namespace.parse("cadc:")


def everything_in_cadc() -> Selection:
    return Selection(wanted=(CADC,), is_wanted=lambda uri: uri.startswith(CADC.value))
