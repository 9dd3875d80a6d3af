"""A federation of two sites and a global, told at random what to do, is what a plain dictionary says."""

from __future__ import annotations

import sys
import time

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.model.machine import NAMESPACES, FederationMachine
from tests.model.world import ALL, World

# Every act is a process: on a machine that has others to run too they take their time.
pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.xdist_group("model"), pytest.mark.timeout(600)]
A, B = NAMESPACES


def explore(world: World, capsys: pytest.CaptureFixture[str], *, examples: int, steps: int, is_random: bool) -> None:
    """Run the machine so often, and say what was done: who reads the output should know what was proven."""
    machine, began = machine_of(world), time.monotonic()
    budget = settings(
        max_examples=examples,
        stateful_step_count=steps,
        derandomize=not is_random,
        database=None,
        deadline=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
        # An example takes seconds, and its steps say what happened: to shorten it takes longer than to read it.
        phases=(Phase.generate,),
    )
    run_state_machine_as_test(machine, settings=budget)
    acts = ", ".join(f"{count} {act}" for act, count in sorted(world.counted.items()))
    assert machine.steps >= examples
    with capsys.disabled():
        sys.stdout.write(
            f"\nmodel: {machine.steps} steps in {machine.examples} examples, {time.monotonic() - began:.0f} s; "
            f"{world.acts} acts: {acts}\n"
        )


def machine_of(world: World) -> type[FederationMachine]:
    class Machine(FederationMachine):
        pass

    Machine.world = world
    return Machine


def test_each_kind_of_step_leaves_what_the_dictionary_says(world: World) -> None:
    """No luck is needed to take each step at least once."""
    machine = machine_of(world)()
    machine.begin([("alpha", A), ("beta", A)], [("alpha", f"{A}x", "a"), ("beta", f"{B}x", "b" * 700)])
    machine.settle()
    for name in ALL:
        machine.backup(name)
    machine.rot("alpha", f"{A}x", 0)
    machine.put_both(f"{A}y", ("ccc", "ddd"))
    machine.clock("beta", -3600)
    machine.delete("alpha", f"{A}x", None)
    machine.put("beta", f"{A}x", "a", None)
    machine.trouble("omega", [("/harvest/", "cut", 100), ("/harvest/artifacts", "earlier", 0), ("/files/", "bent", 0)])
    machine.harvest("alpha", 20)
    machine.settle()
    machine.undelete("alpha", f"{A}y", replaces=True, crash=None)
    machine.put("alpha", f"{B}y", "ccc", 30)
    machine.rewind("omega")
    machine.reconcile("omega", "beta", "all", None)
    machine.scrub("beta", None)
    machine.validate("alpha", None)
    machine.purge("beta", None)
    machine.policy("beta", A, wanted=False)
    machine.sync("alpha", 15)
    machine.settle()
    for name in ALL:
        machine.restore(name)
    machine.check()


def test_a_federation_is_what_a_dictionary_says(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    explore(world, capsys, examples=5, steps=12, is_random=False)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_federation_is_what_a_dictionary_says_for_long(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    explore(world, capsys, examples=400, steps=30, is_random=True)
