"""What the READMEs list is what there is: settings, commands, metrics, queues, checks, tests that they name."""

from __future__ import annotations

import re
from functools import cache

from tests.architecture import source
from tests.architecture.source import PROJECT


@cache
def readme(package: str = "") -> str:
    return (PROJECT / package / "README.md").read_text(encoding="utf-8")


def first_cells(text: str, pattern: str) -> set[str]:
    """The first cell of every table row that has this form."""
    return set(re.findall(rf"^\| `({pattern})`", text, re.MULTILINE))


def all_readmes() -> str:
    found = [path for package in source.PACKAGES for path in (PROJECT / package).rglob("README.md")]
    return "\n".join(path.read_text(encoding="utf-8") for path in [PROJECT / "README.md", *sorted(found)])


def test_every_environment_variable_is_in_the_configuration_table_and_no_other() -> None:
    documented = first_cells(readme(), "(?:INVENTORY_[A-Z0-9_]+|DATABASE_URL|REDIS_URL)")
    assert len(documented) > 50
    assert documented == source.environment_variables()


def test_every_command_is_in_the_table_of_commands_and_no_other() -> None:
    documented = {name.removeprefix("manage.py ") for name in first_cells(readme(), "manage.py [a-z_]+")}
    assert documented == source.commands()


# Other words of ours that begin like a metric.
NO_METRICS = {"inventory_error", "inventory_now"}


def test_every_metric_is_documented_and_every_documented_metric_exists() -> None:
    documented = set(re.findall(r"`(inventory_[a-z0-9_]+)[`{]", all_readmes())) - NO_METRICS
    assert source.metric_names() - documented == set()
    assert documented - source.metric_names() == set()


def test_every_queue_is_documented() -> None:
    documented = set(re.findall(r"`([a-z-]+)`", readme() + readme("site_service")))
    assert source.queue_names() - documented == set()


def test_every_check_is_documented_and_has_an_id_of_its_own() -> None:
    texts = [(PROJECT / path).read_text(encoding="utf-8") for path in source.modules() if path.name == "checks.py"]
    raised = re.findall(r'id="(inventory\.E\d{3})"', "".join(texts))
    assert len(raised) == len(set(raised)) >= 10
    assert first_cells(readme("datamodel"), r"inventory\.E\d{3}") == set(raised)


def test_every_package_has_a_map_of_itself() -> None:
    for package in source.PACKAGES:
        assert readme(package).startswith("# ")


def test_links_and_named_files_exist() -> None:
    broken = []
    for path in [
        PROJECT / "README.md",
        PROJECT / "CHANGELOG.md",
        *(PROJECT / name / "README.md" for name in source.PACKAGES),
    ]:
        text = path.read_text(encoding="utf-8")
        targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text) + re.findall(r"`(tests/[a-z_/]+(?:\.py)?)`", text)
        broken += [
            f"{path.name}: {target}"
            for target in targets
            if not ((path.parent / target).exists() or (PROJECT / target).exists())
        ]
    assert broken == []


def test_nothing_names_the_machine_it_was_made_on() -> None:
    suspicious = re.compile(r"(?:^|[\s\"'(=])/(?:home|root|Users)/\w")
    files = [path for path in PROJECT.glob("*") if path.is_file() and path.suffix in {".md", ".toml", ""}]
    assert [path.name for path in files if suspicious.search(path.read_text(encoding="utf-8", errors="replace"))] == []
