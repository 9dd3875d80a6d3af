"""File roles: what a file of a name may do, and how large it may grow."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.architecture.source import PROJECT, modules, nodes

# Where the environment is read (`env.py`), handed to children, or given its defaults before settings exist.
MAY_USE_ENVIRON = {
    "env.py",
    "clusters.py",
    "embedded.py",
    "processes.py",
    "celery.py",
    "wsgi.py",
    "broker.py",
    "webserver.py",
}
MAX_LINES = 400


def test_the_environment_is_read_in_one_place() -> None:
    found = {
        str(path)
        for path, inside in nodes().items()
        for node in inside
        if isinstance(node, ast.Attribute) and node.attr == "environ" and path.name not in MAY_USE_ENVIRON
    }
    assert {name for name in found if not name.startswith("harvest/demo/")} == set()


def test_queries_never_write() -> None:
    words = ("INSERT INTO ", "UPDATE ", "DELETE FROM ", "TRUNCATE ")
    calls = {"create", "update", "save", "delete", "bulk_create", "update_or_create", "get_or_create"}
    looked_at = [(path, inside) for path, inside in nodes().items() if path.name == "queries.py"]
    assert len(looked_at) >= 1
    for path, inside in looked_at:
        for node in inside:
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert not node.value.lstrip().upper().startswith(words), f"{path}:{node.lineno}"
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                assert node.func.attr not in calls, f"{path}:{node.lineno}"


def test_rules_have_neither_clock_nor_io() -> None:
    forbidden = {"now", "today", "utcnow", "monotonic", "open", "urandom", "uuid4", "sleep"}
    looked_at = [(path, inside) for path, inside in nodes().items() if path.name == "rules.py"]
    assert len(looked_at) >= 1
    for path, inside in looked_at:
        for node in inside:
            if isinstance(node, ast.Call):
                name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                assert name not in forbidden, f"{path}:{node.lineno} calls {name}"


def test_every_module_says_what_lives_in_it() -> None:
    silent = [str(path) for path, tree in modules().items() if tree.body and not ast.get_docstring(tree)]
    assert [name for name in silent if "/migrations/" not in name] == []


def test_no_file_grows_beyond_what_one_reads_at_once() -> None:
    lengths = {path: len((PROJECT / path).read_text(encoding="utf-8").splitlines()) for path in modules()}
    assert {str(path): n for path, n in lengths.items() if n > MAX_LINES and "migrations" not in path.parts} == {}


def test_nothing_is_called_by_a_word_that_says_nothing() -> None:
    words = {"util", "utils", "helper", "helpers", "manager", "handler", "common", "misc"}
    assert [str(path) for path in modules() if words & set(Path(path).with_suffix("").parts)] == []
