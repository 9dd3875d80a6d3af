"""A remote inventory as a peer sees it: a real HTTP server on loopback that speaks the feed protocol and can misbehave.

It keeps states like a real one: per stream a list of rows in the order of their transaction ids. Everything it sends is
made here, apart from the code under test.
"""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

from datamodel.rules import ArtifactRow, event_meta_checksum, site_meta_checksum

TOKEN = "peer-token"
WHEN = datetime(2026, 1, 2, 3, 4, 5, 678000, UTC)
COLUMNS: dict[str, list[str]] = {
    "sites": ["txid", "id", "resourceID", "name", "allowRead", "allowWrite", "lastModified", "metaChecksum"],
    "deleted-locations": ["txid", "id", "uri", "lastModified", "metaChecksum"],
    "locations": ["txid", "id", "uri", "lastModified", "metaChecksum"],
    "deleted-artifacts": ["txid", "id", "uri", "lastModified", "metaChecksum", "deletedAt"],
    "artifacts": [
        "txid",
        "id",
        "uri",
        "contentChecksum",
        "contentLastModified",
        "contentLength",
        "contentType",
        "contentEncoding",
        "lastModified",
        "metaChecksum",
        "contentSha256",
        "metaModified",
    ],
}


def stamp(when: datetime) -> str:
    return when.astimezone(UTC).isoformat(timespec="milliseconds").removesuffix("+00:00")


def artifact_fields(row: ArtifactRow) -> dict[str, str | None]:
    return {
        "id": str(row.id),
        "uri": row.uri,
        "contentChecksum": row.content_checksum,
        "contentLastModified": stamp(row.content_last_modified),
        "contentLength": str(row.content_length),
        "contentType": row.content_type,
        "contentEncoding": row.content_encoding,
        "lastModified": stamp(row.last_modified),
        "metaChecksum": row.meta_checksum,
        "contentSha256": row.content_sha256.hex() if row.content_sha256 else None,
        "metaModified": stamp(row.meta_modified_at),
    }


def event_fields(identity: uuid.UUID, uri: str | None, when: datetime = WHEN) -> dict[str, str | None]:
    return {
        "id": str(identity),
        "uri": uri,
        "lastModified": stamp(when),
        "metaChecksum": event_meta_checksum(identity, uri),
    }


def cell(value: str | None) -> str:
    if value is None:
        return r"\N"
    return value.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n")


@dataclass
class FakeInventory:
    """What the remote holds and how it behaves; tests change it while the server runs."""

    inventory_id: uuid.UUID = field(default_factory=uuid.uuid4)
    epoch: str = "0123456789abcdef"
    txid: int = 100
    rows: dict[str, list[dict[str, str | None]]] = field(default_factory=lambda: {name: [] for name in COLUMNS})
    columns: dict[str, list[str]] = field(default_factory=lambda: {name: list(c) for name, c in COLUMNS.items()})
    keys: dict[str, bytes] = field(default_factory=dict)
    version: str = "1"
    status: dict[str, int] = field(default_factory=dict)
    # Changes the bytes of a page of that stream on their way out.
    twist: dict[str, Callable[[bytes], bytes]] = field(default_factory=dict)
    # Called before a request is answered: to change the inventory at that moment, or to wait.
    before: Callable[[str], None] = lambda _: None
    # Whether its news say which streams have some.
    names_streams: bool = True
    # Whether a page of artifacts says how new the newest deletion is.
    tells_deletions: bool = False
    # Events up to there have expired, those that happened until then.
    gone_txid: int = 0
    expired_until: str | None = None
    cut_after: int | None = None
    drip_seconds: float = 0.0
    requests: list[str] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    # What it says in a header of this answer.
    signs: Callable[[bytes], str] | None = None
    url: str = ""

    def add(self, stream: str, fields: dict[str, str | None], *, same_transaction: bool = False) -> int:
        """A row's new state: any older state of that id in the stream goes."""
        self.txid += 0 if same_transaction else 1
        self.remove(stream, str(fields["id"]))
        self.rows[stream].append({"txid": str(self.txid), **fields})
        return self.txid

    def remove(self, stream: str, identity: str) -> None:
        self.rows[stream] = [row for row in self.rows[stream] if row["id"] != identity]

    def add_site(
        self,
        *,
        identity: uuid.UUID | None = None,
        resource_id: str = "",
        allow_read: bool = True,
        allow_write: bool = True,
    ) -> uuid.UUID:
        identity, resource_id = identity or self.inventory_id, resource_id or f"ivo://fake/{self.txid}"
        checksum = site_meta_checksum(
            identity, allow_read=allow_read, allow_write=allow_write, name="fake", resource_id=resource_id
        )
        fields: dict[str, str | None] = {
            "id": str(identity),
            "resourceID": resource_id,
            "name": "fake",
            "allowRead": str(allow_read).lower(),
            "allowWrite": str(allow_write).lower(),
            "lastModified": stamp(WHEN),
            "metaChecksum": checksum,
        }
        self.add("sites", fields)
        return identity

    def add_artifact(self, row: ArtifactRow, **changes: str | None) -> int:
        return self.add("artifacts", artifact_fields(row) | changes)

    def add_tombstone(self, row: ArtifactRow, deleted_at: datetime = WHEN, *, same_transaction: bool = False) -> int:
        fields = event_fields(row.id, row.uri, deleted_at) | {"deletedAt": stamp(deleted_at)}
        return self.add("deleted-artifacts", fields, same_transaction=same_transaction)

    def delete(self, row: ArtifactRow, deleted_at: datetime = WHEN) -> int:
        self.remove("artifacts", str(row.id))
        return self.add_tombstone(row, deleted_at)

    @property
    def horizon(self) -> int:
        return self.txid + 1

    def page(self, stream: str, query: dict[str, list[str]]) -> bytes:
        cursor = query.get("cursor", [""])[0]
        start = tuple(cursor.split(".")[1:]) if cursor else ("0", "")
        limit = int(query["limit"][0])
        after = (int(start[0]), start[1])
        rows = sorted(self.rows[stream], key=_position)
        rows = [row for row in rows if _position(row) > after]
        rows = [row for row in rows if self._is_asked_for(stream, row, query)][:limit]
        more = len(rows) == limit
        last = (
            (str(rows[-1]["txid"]), str(rows[-1]["id"])) if more else (str(self.txid), str(uuid.UUID(int=2**128 - 1)))
        )
        columns = self.columns[stream]
        body = "".join("\t".join(cell(row.get(name)) for name in columns) + "\n" for row in rows).encode()
        if stream in self.twist:
            body = self.twist[stream](body)
        head = "\t".join(["#storage-inventory-feed", self.version, self.epoch, stream, *columns]) + "\n"
        end = [
            str(body.count(b"\n")),
            f"{self.epoch}.{last[0]}.{last[1]}",
            hashlib.sha256(body).hexdigest(),
            str(int(more)),
        ]
        return head.encode() + body + ("\t".join(["#end", *end]) + "\n").encode()

    def members(self, query: dict[str, list[str]]) -> list[dict[str, str | None]]:
        """The artifacts of a set: all that are served, or (known) what the longest namespace takes, or the site holds."""
        if query["set"] == ["stored"] and "namespace" not in query:
            return self.rows["artifacts"]
        included, excluded = query.get("namespace", []), query.get("except", [])

        def is_taken(uri: str) -> bool:
            best = max((name for name in [*included, *excluded] if uri.startswith(name)), key=len, default="")
            return best in included

        is_known = query["set"] == ["known"]
        return [
            row
            for row in self.rows["artifacts"]
            if is_taken(str(row["uri"])) or (is_known and row.get("holder") == query["site"][0])
        ]

    def _under(self, query: dict[str, list[str]]) -> list[tuple[str, str]]:
        found = [(str(row["id"]), str(row["metaChecksum"])) for row in self.members(query)]
        prefixes = tuple(query.get("prefix", [""]))
        return sorted(row for row in found if row[0].replace("-", "").startswith(prefixes))

    def tree(self, query: dict[str, list[str]]) -> bytes:
        depth = int(query["depth"][0])
        sums: dict[str, list[int]] = {}
        for identity, checksum in self._under(query):
            entry = sums.setdefault(identity.replace("-", "")[:depth], [0, 0])
            entry[0] += 1
            entry[1] += int(hashlib.md5(checksum.encode()).hexdigest()[:16], 16)
        lines = "".join(f"{name}\t{count}\t{total % 2**64:016x}\n" for name, (count, total) in sorted(sums.items()))
        return self._answer("tree", lines.encode())

    def listing(self, query: dict[str, list[str]]) -> bytes:
        after = query.get("after", [""])[0]
        rows = [row for row in self._under(query) if row[0] > after]
        limit = int(query["limit"][0])
        lines = "".join("\t".join(row) + "\n" for row in rows[:limit])
        return self._answer("listing", lines.encode(), str(int(len(rows) > limit)))

    def looked_up(self, query: dict[str, list[str]]) -> bytes:
        ids = set(query["ids"][0].split(","))
        names = ["deleted-locations", "deleted-artifacts", "artifacts"]
        if not self.rows["sites"]:
            names = names[1:]
        everything, self.rows = self.rows, dict(self.rows)
        try:
            for name in names:
                self.rows[name] = [row for row in everything[name] if row["id"] in ids]
            return b"".join(self.page(name, {"limit": ["5000"]}) for name in names)
        finally:
            self.rows = everything

    def _answer(self, kind: str, lines: bytes, *following: str) -> bytes:
        if kind in self.twist:
            lines = self.twist[kind](lines)
        head = f"#storage-inventory-{kind}\t2\t{self.epoch}\t{self.txid}\n"
        end = "\t".join(["#end", str(lines.count(b"\n")), hashlib.sha256(lines).hexdigest(), *following])
        return head.encode() + lines + f"{end}\n".encode()

    def is_gone(self, query: dict[str, list[str]]) -> bool:
        cursor = query.get("cursor", [""])[0]
        if cursor:
            epoch, txid, _ = cursor.split(".")
            return epoch != self.epoch or int(txid) >= self.horizon
        epoch = query.get("epoch", [""])[0]
        return bool(epoch) and (epoch != self.epoch or int(query["after"][0]) > self.horizon)

    def place_to_go_on(self, name: str, query: dict[str, list[str]]) -> str:
        """The cursor in the answer that events after the one asked for are gone; "" if they are not."""
        cursor = query.get("cursor", [""])[0]
        if (
            not cursor
            or name not in self.rows
            or name in {"artifacts", "sites"}
            or int(cursor.split(".")[1]) >= self.gone_txid
        ):
            return ""
        return f"{self.epoch}.{self.gone_txid}.{uuid.UUID(int=2**128 - 1)}"

    def news(self, query: dict[str, list[str]]) -> dict[str, object]:
        deadline = time.monotonic() + float(query.get("wait", ["0"])[0])
        after = max(int(query.get("after", ["0"])[0]), 1)
        while not self._has_rows(after) and time.monotonic() < deadline:
            time.sleep(0.005)  # the fake's own wait for a test to add a row
        answer: dict[str, object] = {
            "epoch": self.epoch,
            "horizon": self.horizon,
            "inventoryId": str(self.inventory_id),
            "news": self._has_rows(after) or after <= self.gone_txid,
        }
        if self.names_streams:
            answer |= {"settled": self.txid, "streams": [name for name in self.rows if self._newest(name) >= after]}
            if after <= self.gone_txid:
                answer["streams"] = list(self.rows)
        answer["expiredUntil"] = self.expired_until
        return answer

    def key_set(self) -> dict[str, object]:
        def pack(raw: bytes) -> str:
            return base64.urlsafe_b64encode(raw).decode().rstrip("=")

        keys = [{"kid": name, "kty": "OKP", "crv": "Ed25519", "x": pack(raw)} for name, raw in self.keys.items()]
        return {"keys": [*keys, {"kid": "other", "kty": "RSA", "n": "AQAB", "e": "AQAB"}]}

    def asked(self, stream: str) -> list[dict[str, list[str]]]:
        """The queries of that stream so far."""
        found = [urlsplit(request) for request in self.requests]
        return [parse_qs(parts.query) for parts in found if parts.path.endswith(f"/harvest/{stream}")]

    @property
    def deletions(self) -> str | None:
        return str(max(self._newest("deleted-artifacts"), self.gone_txid)) if self.tells_deletions else None

    def _has_rows(self, after: int) -> bool:
        return any(self._newest(name) >= after for name in self.rows)

    def _newest(self, stream: str) -> int:
        return max((int(str(row["txid"])) for row in self.rows[stream]), default=0)

    def _is_asked_for(self, stream: str, row: dict[str, str | None], query: dict[str, list[str]]) -> bool:
        namespaces = query.get("namespace", [])
        holder = query.get("holder", [])
        if stream == "sites" or not (namespaces or holder):
            return True
        uri = row["uri"]
        return (
            (uri is None) or any(uri.startswith(namespace) for namespace in namespaces) or row.get("holder") in holder
        )


def _position(row: dict[str, str | None]) -> tuple[int, str]:
    return int(str(row["txid"])), str(row["id"])


class _Handler(BaseHTTPRequestHandler):
    disable_nagle_algorithm = True
    protocol_version = "HTTP/1.1"
    inventory: ClassVar[FakeInventory]

    def do_POST(self) -> None:
        form = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.path = f"{self.path}?{form}"
        self.do_GET()

    def do_GET(self) -> None:
        inventory = self.inventory
        inventory.requests.append(self.path)
        inventory.tokens.append(self.headers.get("Authorization", ""))
        parts = urlsplit(self.path)
        name = parts.path.rpartition("/")[2]
        inventory.before(name)
        query = parse_qs(parts.query)
        if name in inventory.status:
            return self._send(inventory.status[name], json.dumps({"detail": "as told"}).encode())
        if inventory.is_gone(query):
            return self._send(410, b"{}")
        if cursor := inventory.place_to_go_on(name, query):
            problem = {"code": "history_gone", "detail": "events are gone", "cursor": cursor}
            return self._send(410, json.dumps(problem).encode())
        if name == "news":
            return self._send(200, json.dumps(inventory.news(query)).encode())
        if name == "pubkey":
            body = json.dumps(inventory.key_set()).encode()
            return self._send(200, body, statement=inventory.signs(body) if inventory.signs is not None else "")
        if name == "tree":
            body = inventory.tree(query)
            if f'"{body.splitlines()[-1].split(chr(9).encode())[2].decode()}"' == self.headers.get("If-None-Match"):
                return self._send(304, b"")
            return self._send(200, body, stream=True)
        if name in {"listing", "rows"}:
            answer = inventory.listing if name == "listing" else inventory.looked_up
            return self._send(200, answer(query), stream=True)
        deletions = inventory.deletions if name == "artifacts" else None
        return self._send(200, inventory.page(name, query), stream=True, deletions=deletions)

    def _send(
        self, status: int, body: bytes, *, stream: bool = False, statement: str = "", deletions: str | None = None
    ) -> None:
        self.send_response(status)
        if statement:
            self.send_header("X-Inventory-Keys-Statement", statement)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Inventory-Epoch", self.inventory.epoch)
        if deletions is not None:
            self.send_header("X-Inventory-Deletions", deletions)
        self.end_headers()
        inventory = self.inventory
        if stream and inventory.cut_after is not None:
            self.wfile.write(body[: inventory.cut_after])
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        if stream and inventory.drip_seconds:
            for number in range(0, len(body), 64):
                self.wfile.write(body[number : number + 64])
                time.sleep(inventory.drip_seconds)  # what is slow about this peer
            return
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the name of the base class
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no failure of the fake."""


@contextmanager
def serve(inventory: FakeInventory | None = None) -> Iterator[FakeInventory]:
    """The inventory, served on a free port of loopback until the block ends."""
    served = inventory or FakeInventory()
    handler = type("Handler", (_Handler,), {"inventory": served})
    server = _Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    served.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
