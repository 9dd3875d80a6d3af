"""Column types of the model."""

from __future__ import annotations

from typing import Any

from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models.fields import NOT_PROVIDED


class MillisField(models.DateTimeField):  # type: ignore[type-arg]  # the stub is generic, the class is not
    """`timestamptz(3)`: model times have millisecond precision (they enter `metaChecksum`); truncate before storing."""

    def db_type(self, connection: BaseDatabaseWrapper) -> str:  # noqa: ARG002  # Django asks with the connection
        return "timestamptz(3)"


class UriField(models.CharField):  # type: ignore[type-arg]  # the stub is generic, the class is not
    """Text in C collation, so that the order of the database is the order of the characters, whatever the cluster's locale."""

    def __init__(
        self,
        *,
        max_length: int = 512,
        null: bool = False,
        unique: bool = False,
        blank: bool = False,
        default: Any = NOT_PROVIDED,
    ) -> None:
        super().__init__(
            max_length=max_length, null=null, unique=unique, blank=blank, default=default, db_collation="C"
        )

    def deconstruct(self) -> tuple[str, str, list[object], dict[str, object]]:
        name, path, args, kwargs = super().deconstruct()
        kwargs.pop("db_collation", None)
        return name, path, list(args), dict(kwargs)
