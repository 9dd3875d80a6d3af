"""Connections to PostgreSQL itself (INVENTORY_DIRECT_DATABASE_URL), for what lasts longer than a transaction.

Everything else may go through a pooler of transactions, which gives each transaction any of its sessions: LISTEN, temporary tables
and settings of a session are lost there, without an error.
"""

from __future__ import annotations

import psycopg
from django.conf import settings
from django.db import connections

_OWN = {"dbname", "user", "password", "host", "port"}
POOLED = "INVENTORY_DIRECT_DATABASE_URL leads to a pooler: it must name PostgreSQL itself, or nothing is heard"


def connect(application_name: str) -> psycopg.Connection[tuple[object, ...]]:
    """A connection of one's own, in autocommit mode."""
    url = settings.INVENTORY_DIRECT_DATABASE_URL
    if url:
        return psycopg.connect(url, autocommit=True, application_name=application_name)
    parameters = connections["default"].get_connection_params()
    parameters = {name: value for name, value in parameters.items() if name in _OWN}
    return psycopg.connect(**parameters, autocommit=True, application_name=application_name)


def is_pooled(connection: psycopg.Connection[tuple[object, ...]]) -> bool:
    """Whether somebody between lends sessions: the one that answers is not the one that said who it is when we connected."""
    return connection.execute("SELECT pg_backend_pid()").fetchone() != (connection.info.backend_pid,)
