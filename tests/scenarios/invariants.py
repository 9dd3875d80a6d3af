"""What must hold in a settled federation, whatever was killed: the four invariants, asked over HTTP and of the databases."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from pathlib import Path

from harvest.demo.federation import EVERYTHING
from harvest.demo.peer import Peer
from tests.scenarios.federation import SITES, Demo, eventually, listing, read


def assert_sound(demo: Demo, namespace: str, *, killed: Collection[str] = ()) -> None:
    """Wait until the federation agrees about a namespace, then look at every invariant.

    At a site whose writers were `killed` bytes may be published whose row never came: they must say whose they are, so that
    file validate can tell what to do with them.
    """
    demo.await_ready()
    eventually(
        lambda: listing(demo.all_sites, namespace) == listing(demo.alpha, namespace) == listing(demo.beta, namespace),
        f"global, alpha and beta do not come to list the same in {namespace}",
    )
    for peer in (demo.alpha, demo.beta):
        _no_row_without_bytes(peer, namespace)
    for name in SITES:
        _no_bytes_without_row(demo, name, was_killed=name in killed)
        _no_event_without_change(demo, name)
    _cursor_not_ahead(demo)


def _no_row_without_bytes(peer: Peer, namespace: str) -> None:
    for listed in listing(peer, namespace).values():
        content = read(peer, listed.uri)
        found = f"md5:{hashlib.md5(content, usedforsecurity=False).hexdigest()}"
        assert (len(content), found) == (listed.length, listed.checksum), listed


def _no_bytes_without_row(demo: Demo, name: str, *, was_killed: bool) -> None:
    """Everything published in the store has a row: located, retired or obsolete."""
    known = """SELECT storage_id FROM storage_location UNION ALL SELECT storage_id FROM obsolete_storage_location
               UNION ALL SELECT storage_id FROM retired_artifact WHERE state IN ('retained', 'removing', 'restored')"""

    def lone() -> set[Path]:
        objects = (demo.directory / name / "storage" / "objects").rglob("*")
        rows = {row[0] for row in demo.sql(name, known)}
        published = {path for path in objects if path.is_file() and path.suffix == ""}
        return {path for path in published - demo.left_by_killed if path.name not in rows}

    if was_killed:
        for path in lone():
            # Of whatever was carried then, other tests' files too. The second line of a record is its digest.
            facts = path.with_suffix(".json").read_text().splitlines()[0]
            assert json.loads(facts)["facts"]["uri"].startswith(EVERYTHING)
            demo.left_by_killed.add(path)
    # A transfer that runs now has published its bytes a moment before their row.
    eventually(lambda: not lone(), f"bytes without a row at {name}: {lone()}")


def _no_event_without_change(demo: Demo, name: str) -> None:
    """Events are states: what is said to be gone is gone, what is said to be here is here."""
    living = "SELECT d.id FROM deleted_artifact_event d JOIN artifact a ON a.id = d.id"
    absent = """SELECT e.id FROM storage_location_event e LEFT JOIN storage_location l ON l.artifact_id = e.id
                WHERE l.artifact_id IS NULL AND NOT EXISTS (SELECT FROM deleted_artifact_event d WHERE d.id = e.id)"""
    both = "SELECT e.id FROM storage_location_event e JOIN deleted_storage_location_event d ON d.id = e.id"
    for query in (living, absent, both):
        assert demo.sql(name, query) == []


def _cursor_not_ahead(demo: Demo) -> None:
    """What the global's cursor has passed at a site, the global has: every stored artifact there has its site location."""
    at_sites = {
        (name, str(row[0])) for name in SITES for row in demo.sql(name, "SELECT artifact_id FROM storage_location")
    }

    def known() -> set[tuple[str, str]]:
        rows = demo.sql(
            "global",
            """SELECT r.name, l.artifact_id::text FROM site_location l JOIN artifact a ON a.id = l.artifact_id
               JOIN remote_inventory r ON r.site_id = l.site_id""",
        )
        return {(row[0], row[1]) for row in rows}

    eventually(lambda: at_sites <= known(), f"the global does not know of {at_sites - known()}")
