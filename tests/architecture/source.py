"""What the source says of itself: settings read, metrics made, queues named; for the tests that compare documents."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PROJECT = Path(__file__).parents[2]
PACKAGES = ("datamodel", "harvest", "site_service", "global_inventory")
_METRICS = {
    "GaugeMetricFamily",
    "CounterMetricFamily",
    "InfoMetricFamily",
    "HistogramMetricFamily",
    "Counter",
    "Histogram",
}
_ENV_READERS = {"text", "flag", "integer", "words"}


@cache
def modules() -> dict[Path, ast.Module]:
    """Every module of the four packages, parsed."""
    found = sorted(path for package in PACKAGES for path in (PROJECT / package).rglob("*.py"))
    return {path.relative_to(PROJECT): ast.parse(path.read_text(encoding="utf-8")) for path in found}


def environment_variables() -> set[str]:
    """Variables read by `env.py`'s readers, or straight from the environment."""
    return {name for tree in modules().values() for name in _variables(tree)} | {"INVENTORY_BASE_PATH"}


def metric_names() -> set[str]:
    """Names of metrics as Prometheus shows them."""
    return {name for tree in modules().values() for name in _first_arguments(tree, _METRICS)}


def queue_names() -> set[str]:
    """Queues of actors, and Celery's one queue."""
    named = {
        keyword.value.value
        for tree in modules().values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if keyword.arg == "queue_name" and isinstance(keyword.value, ast.Constant)
    }
    return {str(name) for name in named} | {"decide"}


def commands() -> set[str]:
    """Names of management commands."""
    return {path.stem for path in modules() if path.parent.name == "commands" and path.stem != "__init__"}


def _variables(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and _reads_environment(node.func):
            yield from filter(_is_ours, _texts(node.args[:1]))
        if isinstance(node, ast.Subscript) and _is_environ(node.value) and isinstance(node.ctx, ast.Load):
            yield from filter(_is_ours, _texts([node.slice]))


def _texts(nodes: list[ast.expr]) -> list[str]:
    return [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]


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


def _first_arguments(tree: ast.Module, functions: set[str]) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in functions:
            yield from _texts(node.args[:1])
