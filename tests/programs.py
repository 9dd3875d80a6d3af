"""Programs of the machine that some tests run, or that `.ci/get-debian` has put below build/; None without them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

_BUILD = Path(__file__).parents[1] / "build"


def _found(package: str, program: str) -> str | None:
    directory, name = (_BUILD / package / program).parent, Path(program).name
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:{directory}")


NGINX = _found("nginx", "usr/sbin/nginx")
PGBOUNCER = _found("pgbouncer", "usr/sbin/pgbouncer")
PROMTOOL = _found("prometheus", "usr/bin/promtool")
