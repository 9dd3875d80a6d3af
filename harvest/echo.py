"""No echo: what a global has from a site exactly as it was served there, it need not tell that site.

Noted page by page, by transaction: a row that changes at the global gets another one, so it is told without anybody having to
think of it. A note serves until the site has passed its transaction.
"""

from __future__ import annotations

import uuid

from django.db import connection

from datamodel.positions import read_identity

# Of rows `t` from transaction `first` on: whether `sender` served them so. Transactions of another epoch say nothing.
_CAME_FROM = """
    EXISTS (SELECT FROM harvested_page e WHERE e.txid = t.txid AND e.txid >= %(first)s AND e.site_id = %(sender)s
        AND e.epoch = (SELECT epoch FROM inventory_identity WHERE id = 1))
"""
IS_NO_ECHO = f"NOT {_CAME_FROM}"
# More is not looked at to find that there is nothing to tell.
_MOST_ROWS = 1000
_ONLY_ECHOES_SQL = f"""
    SELECT count(*) < {_MOST_ROWS} AND coalesce(bool_and({_CAME_FROM}), TRUE) FROM (SELECT txid FROM artifact
        WHERE txid >= %(first)s AND txid < %(horizon)s ORDER BY txid, id LIMIT {_MOST_ROWS}) t
"""
_NOTE_SQL = """
    INSERT INTO harvested_page (txid, epoch, site_id)
    SELECT pg_current_xact_id()::text::bigint, i.epoch, %s FROM inventory_identity i WHERE i.id = 1
"""
_PRUNE_SQL = """
    DELETE FROM harvested_page e WHERE e.epoch <> (SELECT epoch FROM inventory_identity WHERE id = 1)
        OR e.txid <= coalesce((SELECT min(r.txid) FROM feed_reader r WHERE r.inventory_id = e.site_id AND r.epoch = %(epoch)s
            AND r.retired_at IS NULL), e.txid)
"""


def note_page(site_id: uuid.UUID) -> None:
    """The artifacts that this transaction has stamped are as the site served them, all of them."""
    with connection.cursor() as cursor:
        cursor.execute(_NOTE_SQL, [site_id])


def has_only_echoes(sender: uuid.UUID, first: int, horizon: int) -> bool:
    """Whether all artifacts of these transactions came from the sender; False, too, where they are many."""
    with connection.cursor() as cursor:
        cursor.execute(_ONLY_ECHOES_SQL, {"sender": sender, "first": first, "horizon": horizon})
        return bool(cursor.fetchone()[0])


def prune() -> int:
    """Forget what the sites have passed, what nobody reads and what is of another epoch; returns how many pages."""
    with connection.cursor() as cursor:
        cursor.execute(_PRUNE_SQL, {"epoch": read_identity().epoch})
        return int(cursor.rowcount)
