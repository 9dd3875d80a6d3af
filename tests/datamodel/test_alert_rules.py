"""The shipped alert rules: accepted and tested by promtool, complete, and about metrics that exist; each has a runbook entry."""

from __future__ import annotations

import re
import subprocess
from typing import Any

import pytest
import yaml

from datamodel.alarms.rules import AlarmKind
from tests.architecture.source import PROJECT, metric_names
from tests.programs import PROMTOOL

ROOM = PROJECT / "datamodel" / "alarms"


def alert_rules() -> list[dict[str, Any]]:
    document = yaml.safe_load((ROOM / "alerts.yaml").read_text(encoding="utf-8"))
    found = [rule for group in document["groups"] for rule in group["rules"]]
    assert len(found) > 10
    return found


def runbook_anchors() -> set[str]:
    """Headings as links to them are written."""
    headings = re.findall(r"^## (.+)$", (ROOM / "RUNBOOK.md").read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^a-z0-9_ -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("arguments", [("check", "rules", "alerts.yaml"), ("test", "rules", "alerts_test.yaml")])
def test_promtool_accepts_the_rules_and_their_tests(arguments: tuple[str, ...]) -> None:
    if PROMTOOL is None:
        pytest.skip("there is no promtool: install prometheus, or let .ci/get-debian fetch it")
    outcome = subprocess.run([PROMTOOL, *arguments], cwd=ROOM, capture_output=True, text=True, check=False)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    assert "SUCCESS" in outcome.stdout


def test_every_kind_of_alarm_has_a_rule_and_an_entry_in_the_runbook() -> None:
    kinds = {kind.value for kind in AlarmKind}
    expressions = " ".join(rule["expr"] for rule in alert_rules())
    assert set(re.findall(r'inventory_alarms_open\{kind="([a-z_]+)"\}', expressions)) == kinds
    assert kinds - runbook_anchors() == set()


def test_every_rule_leads_to_an_entry_of_the_runbook_and_every_entry_is_led_to() -> None:
    links = {rule["annotations"]["runbook"] for rule in alert_rules()}
    assert links == {f"RUNBOOK.md#{anchor}" for anchor in runbook_anchors()}


def test_every_rule_is_about_metrics_that_exist_and_is_tested() -> None:
    named = set(re.findall(r"inventory_[a-z_]+", " ".join(rule["expr"] for rule in alert_rules())))
    assert len(named) > 5
    assert named - metric_names() == set()
    tested = (ROOM / "alerts_test.yaml").read_text(encoding="utf-8")
    assert [rule["alert"] for rule in alert_rules() if f"alertname: {rule['alert']}\n" not in tested] == []
