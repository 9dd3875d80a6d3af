"""A feature whose gauges ask for a table that is not there."""

from __future__ import annotations

from collections.abc import Iterator

from django.db import connection
from prometheus_client.core import Metric


def collect() -> Iterator[Metric]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT * FROM there_is_no_such_table")
    yield from ()
