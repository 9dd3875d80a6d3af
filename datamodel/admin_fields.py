"""Fields of the admin's forms."""

from __future__ import annotations

from typing import Any

from django import forms


class LinesField(forms.CharField):
    """Several words, one per line or with commas between them; `dn:…` has a line of its own."""

    widget = forms.Textarea(attrs={"rows": 3, "cols": 60})

    def __init__(self, *, required: bool = False, **options: Any) -> None:
        super().__init__(required=required, **options)

    def prepare_value(self, value: Any) -> Any:
        return "\n".join(value) if isinstance(value, list) else value

    def to_python(self, value: Any) -> Any:
        # A distinguished name has commas of its own.
        lines = [line.strip() for line in (value or "").splitlines()]
        words = [[line] if line.startswith("dn:") else line.split(",") for line in lines]
        return [word.strip() for found in words for word in found if word.strip()]
