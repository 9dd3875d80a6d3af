"""The machine's nginx, or the one that `.ci/get-nginx` has fetched; None without."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

_FETCHED = Path(__file__).resolve().parents[1] / "build" / "nginx" / "usr" / "sbin"
NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:{_FETCHED}")
