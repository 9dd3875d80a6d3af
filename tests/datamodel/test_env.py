"""Reading of the environment: typed, from files too, with errors that name the variable."""

from __future__ import annotations

from pathlib import Path

import pytest

from datamodel import env
from datamodel.errors import NotConfiguredError

NAME = "INVENTORY_TEST_VALUE"


def test_a_value_comes_from_the_environment_a_file_or_the_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert env.text(NAME, "default") == "default"
    (tmp_path / "secret").write_text("from file\n")
    monkeypatch.setenv(f"{NAME}_FILE", str(tmp_path / "secret"))
    assert env.text(NAME, "default") == "from file"
    monkeypatch.setenv(NAME, "set")
    assert env.text(NAME, "default") == "set"


def test_what_is_missing_or_unreadable_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(NotConfiguredError, match=NAME):
        env.text(NAME)
    monkeypatch.setenv(f"{NAME}_FILE", str(tmp_path / "nothing"))
    with pytest.raises(NotConfiguredError, match=f"{NAME}_FILE names .*nothing"):
        env.text(NAME, "default")


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", True), ("TRUE", True), ("yes", True), ("on", True), ("0", False), ("", False), ("Off", False)],
)
def test_flags(monkeypatch: pytest.MonkeyPatch, text: str, value: bool) -> None:
    monkeypatch.setenv(NAME, text)
    assert env.flag(NAME, default=not value) is value


def test_a_flag_that_is_neither_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAME, "maybe")
    with pytest.raises(NotConfiguredError, match=f"{NAME} must be one of true, false"):
        env.flag(NAME, default=True)


@pytest.mark.parametrize(("text", "complaint"), [("x", "whole number"), ("1.5", "whole number"), ("-1", "at least 0")])
def test_a_number_out_of_bounds_is_refused(monkeypatch: pytest.MonkeyPatch, text: str, complaint: str) -> None:
    monkeypatch.setenv(NAME, text)
    with pytest.raises(NotConfiguredError, match=complaint):
        env.integer(NAME, 5)


def test_words_have_no_blanks_and_no_empty_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAME, " a, b ,,c")
    assert env.words(NAME) == ["a", "b", "c"]
    assert env.integer("INVENTORY_TEST_OTHER", 7) == 7


@pytest.mark.parametrize(("given", "path"), [("", ""), ("/", ""), ("alpha", "alpha/"), ("/a/b/", "a/b/")])
def test_the_base_path_has_the_form_of_url_patterns(monkeypatch: pytest.MonkeyPatch, given: str, path: str) -> None:
    monkeypatch.setenv("INVENTORY_BASE_PATH", given)
    assert env.base_path() == path


def test_a_database_url_becomes_djangos_settings() -> None:
    assert env.database("postgresql://us%40er:p%2Fw@db.example:5433/inv?sslmode=require") == {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": "inv",
        "USER": "us@er",
        "PASSWORD": "p/w",
        "HOST": "db.example",
        "PORT": "5433",
        "OPTIONS": {"sslmode": "require"},
    }
    socket = env.database("postgresql://u@:5432/inv?host=%2Frun%2Fpg")
    assert (socket["HOST"], socket["PORT"], socket["OPTIONS"]) == ("/run/pg", "5432", {})


def test_another_database_is_refused() -> None:
    with pytest.raises(NotConfiguredError, match="postgresql://"):
        env.database("sqlite:///x")


REDIS = [
    ("redis://r.example:6380/2", "redis://r.example:6380/2", "redis://r.example:6380/3"),
    ("rediss://:pw@r.example", "rediss://:pw@r.example/0", "rediss://:pw@r.example/1"),
    ("unix:///run/redis.sock", "redis+socket:///run/redis.sock?virtual_host=0", "unix:///run/redis.sock?db=1"),
]


@pytest.mark.parametrize(("url", "celery", "dramatiq"), REDIS)
def test_one_redis_url_serves_both(url: str, celery: str, dramatiq: str) -> None:
    assert env.redis_urls(url) == (celery, dramatiq)


def test_another_broker_is_refused() -> None:
    with pytest.raises(NotConfiguredError, match="REDIS_URL"):
        env.redis_urls("amqp://x")
