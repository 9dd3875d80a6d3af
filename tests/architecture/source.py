"""What the source says of itself: settings read, metrics made, queues named; for the tests that compare documents."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

PROJECT = Path(__file__).parents[2]
PACKAGES = ("datamodel", "harvest", "site_service", "global_inventory")
# What Prometheus appends to the name of each kind.
_METRICS = {
    "GaugeMetricFamily": "",
    "HistogramMetricFamily": "",
    "Histogram": "",
    "InfoMetricFamily": "_info",
    "CounterMetricFamily": "_total",
    "Counter": "_total",
}
_ENV_READERS = {"text", "flag", "integer", "choice", "words", "rate", "secret"}


@cache
def modules() -> dict[Path, ast.Module]:
    """Every module of the four packages, parsed."""
    found = sorted(path for package in PACKAGES for path in (PROJECT / package).rglob("*.py"))
    return {path.relative_to(PROJECT): ast.parse(path.read_text(encoding="utf-8")) for path in found}


@cache
def nodes() -> dict[Path, list[ast.AST]]:
    """Everything in each module, walked once for all that look."""
    return {path: list(ast.walk(tree)) for path, tree in modules().items()}


def environment_variables() -> set[str]:
    """Variables read by `env.py`'s readers, or straight from the environment."""
    return {name for found in nodes().values() for name in _variables(found)} | {"INVENTORY_BASE_PATH"}


def metric_names() -> set[str]:
    """Names of metrics as Prometheus shows them; in a metrics module every word of the form is one."""
    kinds: dict[str, str] = {}
    for path, found in nodes().items():
        if path.name == "metrics.py":
            kinds |= {word: "" for word in _texts(found) if re.fullmatch("inventory_[a-z0-9_]+", word)}
    for found in nodes().values():
        kinds |= {name: _METRICS[made] for made, name in _first_arguments(found) if name.startswith("inventory")}
    return {f"{name}{suffix}" for name, suffix in kinds.items()}


def queue_names() -> set[str]:
    """Queues of actors, and Celery's one queue."""
    named: set[str] = set()
    for path, tree in modules().items():
        constants = {
            target.id: node.value
            for node in tree.body
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for node in nodes()[path]:
            if isinstance(node, ast.keyword) and node.arg == "queue_name":
                value = constants.get(node.value.id) if isinstance(node.value, ast.Name) else node.value
                named.update(_texts([value] if value is not None else []))
    return named | {"decide"}


def commands() -> set[str]:
    """Names of management commands."""
    return {path.stem for path in modules() if path.parent.name == "commands" and path.stem != "__init__"}


def _variables(found: Sequence[ast.AST]) -> Iterator[str]:
    for node in found:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and _reads_environment(node.func):
            yield from filter(_is_ours, _texts(node.args[:1]))
        if isinstance(node, ast.Subscript) and _is_environ(node.value) and isinstance(node.ctx, ast.Load):
            yield from filter(_is_ours, _texts([node.slice]))


def _texts(found: Sequence[ast.AST]) -> list[str]:
    return [node.value for node in found if isinstance(node, ast.Constant) and isinstance(node.value, str)]


def _reads_environment(function: ast.Attribute) -> bool:
    if isinstance(function.value, ast.Name) and function.value.id == "env":
        return function.attr in _ENV_READERS
    return function.attr == "get" and _is_environ(function.value)


def _is_environ(node: ast.expr) -> bool:
    return (isinstance(node, ast.Attribute) and node.attr == "environ") or (
        isinstance(node, ast.Name) and node.id == "environ"
    )


def _is_ours(name: str) -> bool:
    return name.startswith("INVENTORY_") or name in {"DATABASE_URL", "REDIS_URL"}


def _first_arguments(found: Sequence[ast.AST]) -> Iterator[tuple[str, str]]:
    """Which kind of metric is made, and the text that comes first."""
    for node in found:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _METRICS:
            yield from ((node.func.id, text) for text in _texts(node.args[:1]))
