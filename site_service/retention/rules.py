"""How long what is deleted stays here. No Django, no clock, no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from datamodel.uris import Namespace, prefix_upper_bound


@dataclass(frozen=True, slots=True)
class Retention:
    """The longest namespace that a uri lies under decides, else `default`; never less than `least`, the longest GET."""

    by_namespace: Mapping[Namespace, timedelta]
    default: timedelta
    least: timedelta

    def of(self, uri: str) -> timedelta:
        """How long this content is kept after its end."""
        matching = [name for name in self.by_namespace if uri.startswith(name.value)]
        longest = max(matching, key=lambda name: len(name.value), default=None)
        return max(self.least, self.by_namespace[longest] if longest is not None else self.default)

    def keeps_until(self, uri: str, died_at: datetime) -> datetime:
        """From then on its bytes may be removed."""
        return died_at + self.of(uri)

    @property
    def shortest(self) -> timedelta:
        """Nothing that died more lately is due."""
        return max(self.least, min([self.default, *self.by_namespace.values()]))

    def sql(self, column: str) -> tuple[str, dict[str, str | float]]:
        """`of(column)` as an SQL expression of seconds with its named parameters."""
        parameters: dict[str, str | float] = {
            "default_kept": self.default.total_seconds(),
            "least_kept": self.least.total_seconds(),
        }
        cases = []
        longest_first = sorted(self.by_namespace.items(), key=lambda rule: -len(rule[0].value))
        for number, (namespace, kept) in enumerate(longest_first):
            cases.append(f"WHEN {column} >= %(from{number})s AND {column} < %(to{number})s THEN %(kept{number})s")
            parameters |= {
                f"from{number}": namespace.value,
                f"to{number}": prefix_upper_bound(namespace.value),
                f"kept{number}": kept.total_seconds(),
            }
        decided = f"CASE {' '.join(cases)} ELSE %(default_kept)s END" if cases else "%(default_kept)s"
        return f"greatest(%(least_kept)s::double precision, ({decided})::double precision)", parameters
