"""A live service compared with its OpenAPI document by Schemathesis: made-up requests, valid and not, and all of its checks.

No 500, no status, header, type or body that the document does not tell. What is left out is in `schemathesis.toml`, with reasons.
"""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
CONFIGURATION = PROJECT / "tests" / "schemathesis.toml"


def conforms(package: str, url: str, directory: Path, *options: str, token: str | None = None) -> None:
    """Raises `AssertionError` with what was found; `directory` is for whatever the tool wants to write."""
    if find_spec("schemathesis") is None:
        pytest.skip("there is no schemathesis: make install-dev")
    argv = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIGURATION), "--no-color"]
    argv += ["run", str(PROJECT / package / "openapi.yaml"), "--url", url, "--continue-on-failure"]
    argv += ["--request-timeout", "60", "--seed", "1", "--generation-deterministic", *options]
    if token is not None:
        argv += ["-H", f"Authorization: Bearer {token}"]
    ran = subprocess.run(argv, cwd=directory, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout[-20_000:] + ran.stderr[-2_000:]
    assert " passed" in ran.stdout
