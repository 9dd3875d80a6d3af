"""The asking side: trees, listings and single rows of a remote, and what they cost on the wire."""

from __future__ import annotations

import io
import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

from datamodel.errors import RemoteUnavailableError
from harvest import client
from harvest.client import Remote
from harvest.pages import Page, PageQuery, Receiver
from harvest.reconcile import wire
from harvest.reconcile.scope import MOST_PARTS, Listed, Scope, Tree, count_parts, digest_of, tree_lines
from harvest.streams import Stream

# The other end scans its rows before it answers.
_SCAN_SECONDS = 600
_LINE_BYTES = 128
_ROW_BYTES = 8192
_SLACK_BYTES = 16 * 1024
_END_LINE = re.compile(rb"^#end\t[^\n]*\n", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class ListedPage:
    """Rows in order, and whether more follow after the last."""

    epoch: str
    rows: list[Listed]
    more: bool


@dataclass(slots=True)
class Peer:
    """A remote, asked for one scope; counts requests and bytes both ways (without HTTP headers).

    Everything raises as `client.fetch_page` does, and `RemoteProtocolError` for what is not what it claims to be.
    """

    remote: Remote
    scope: Scope
    requests: int = 0
    traffic: int = 0
    epochs: set[str] = field(default_factory=set)

    def whole(self, *, then: int) -> Tree:
        """One digest of everything the remote has; its tree of depth `then` may be asked for next, and is kept there until then."""
        return self._tree([("depth", "0"), ("then", str(then))], depth=0, prefixes=(), ours={})

    def tree(self, *, depth: int, prefixes: Sequence[str] = (), ours: Tree, whole: Tree | None = None) -> Tree:
        """The remote's tree, of the scan that gave `whole` if it has kept that; `ours` is not sent again by a remote that has the same."""
        fields = [("depth", str(depth)), *(("prefix", prefix) for prefix in prefixes)]
        if whole is not None:
            fields.append(("whole", digest_of(tree_lines(whole))))
        return self._tree(fields, depth=depth, prefixes=prefixes, ours=ours)

    def _tree(self, fields: Sequence[tuple[str, str]], *, depth: int, prefixes: Sequence[str], ours: Tree) -> Tree:
        most = min(count_parts(depth, prefixes), MOST_PARTS) * _LINE_BYTES + _SLACK_BYTES
        body = self._ask("tree", fields, most, etag=f'"{digest_of(tree_lines(ours))}"')
        if body is None:
            return ours
        epoch, tree = wire.parse_tree(self.remote.name, body, depth=depth, prefixes=prefixes)
        self.epochs.add(epoch)
        return tree

    def listing(self, *, prefixes: Sequence[str], after: uuid.UUID | None, limit: int) -> ListedPage:
        """The rows of some prefixes after an id."""
        fields = [("limit", str(limit)), *(("prefix", prefix) for prefix in prefixes)]
        if after is not None:
            fields.append(("after", str(after)))
        body = self._ask("listing", fields, limit * _LINE_BYTES + _SLACK_BYTES) or b""
        epoch, rows, more = wire.parse_listing(self.remote.name, body, prefixes=prefixes, after=after)
        self.epochs.add(epoch)
        return ListedPage(epoch, rows, more)

    def rows(self, streams: Sequence[Stream], ids: Sequence[uuid.UUID]) -> list[Page]:
        """What is known there of these ids: a page of each stream, all of one moment."""
        fields = [("ids", ",".join(map(str, ids)))]
        body = self._fetch("rows", fields, len(streams) * (len(ids) + 2) * _ROW_BYTES, "") or b""
        pages: list[Page] = []
        for stream in streams:
            end = _END_LINE.search(body)
            if end is None:
                raise RemoteUnavailableError(f"{self.remote.name} stopped in the middle of its rows of {stream.name}")
            receiver = Receiver(self.remote.name, PageQuery(stream, None, len(ids)), io.BytesIO())
            receiver.take(body[: end.end()])
            pages.append(receiver.page(None))
            body = body[end.end() :]
        return pages

    def _ask(self, what: str, fields: Sequence[tuple[str, str]], most_bytes: int, *, etag: str = "") -> bytes | None:
        return self._fetch(what, [*self.scope.parameters, *fields], most_bytes, etag)

    def _fetch(self, what: str, fields: Sequence[tuple[str, str]], most_bytes: int, etag: str) -> bytes | None:
        body = client.fetch_text(
            self.remote, f"/harvest/{what}", fields, seconds=_SCAN_SECONDS, most_bytes=most_bytes, etag=etag
        )
        self.requests += 1
        self.traffic += sum(len(name) + len(value) + 2 for name, value in fields) + len(body or b"")
        return body
