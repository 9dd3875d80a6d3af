"""Fields of the admin's forms."""

from __future__ import annotations

import re
from typing import Any

from django import forms


class LinesField(forms.CharField):
    """Several words, one per line or with commas between them."""

    widget = forms.Textarea(attrs={"rows": 3, "cols": 60})

    def __init__(self, *, required: bool = False, **options: Any) -> None:
        super().__init__(required=required, **options)

    def prepare_value(self, value: Any) -> Any:
        return "\n".join(value) if isinstance(value, list) else value

    def to_python(self, value: Any) -> Any:
        return [word.strip() for word in re.split(r"[\n,]", value or "") if word.strip()]
