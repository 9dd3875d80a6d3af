"""Which reads of files are recorded: rules per namespace, remembered like rights."""

from __future__ import annotations

import random
import threading
from dataclasses import dataclass

from datamodel.audit.models import AuditReadRule
from datamodel.deletion import governing
from datamodel.notify import Freshness


@dataclass(frozen=True, slots=True)
class _Remembered:
    percents: dict[str, int]
    freshness: Freshness


class ReadRules:
    """Asked at each read: without rules that is one look at memory."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._remembered: _Remembered | None = None

    def chosen(self, uri: str) -> int:
        """Of how many of 100 reads this one stands for, if it is to be recorded; else 0."""
        percents = self._get().percents
        percent = percents.get(governing(uri, percents), 0) if percents else 0
        return percent if percent and random.random() * 100 < percent else 0  # noqa: S311  # a sample guards nothing

    def forget(self) -> None:
        """Ask the table next time."""
        self._remembered = None

    def _get(self) -> _Remembered:
        found = self._remembered
        if found is not None and found.freshness.is_good:
            return found
        with self._lock:
            freshness = Freshness.now()
            found = _Remembered(dict(AuditReadRule.objects.values_list("namespace", "percent")), freshness)
            self._remembered = found
            return found


read_rules = ReadRules()
