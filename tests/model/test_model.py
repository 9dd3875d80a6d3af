"""A federation of two sites and a global, told at random what to do, is what a plain dictionary says."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.model.machine import NAMESPACES, FederationMachine
from tests.model.world import ALL, World

# Every act is a process: on a machine that has others to run too they take their time.
pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.xdist_group("model"), pytest.mark.timeout(600)]
A, B = NAMESPACES
Tell = Callable[[str, object], None]


def explore(world: World, tell: Tell, *, examples: int, steps: int, number: int | None = None) -> None:
    """Run the machine so often, always the same way unless there is a seed, and say what was done: who reads the output should know
    what was proven.
    """
    machine, began = machine_of(world), time.monotonic()
    budget = settings(
        max_examples=examples,
        stateful_step_count=steps,
        derandomize=number is None,
        database=None,
        deadline=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
        # An example takes seconds, and its steps say what happened: to shorten it takes longer than to read it.
        phases=(Phase.generate,),
    )
    try:
        run_state_machine_as_test(machine if number is None else seed(number)(machine), settings=budget)
    finally:
        counted = {"crash": 0, "restore": 0, "copy retired": 0, **world.counted}
        acts = ", ".join(f"{count} {act}" for act, count in sorted(counted.items()))
        seeded = "" if number is None else f", seed {number}"
        tell(
            "told",
            f"model: {machine.steps} steps, {counted['crash']} crashes, {counted['restore']} restores in {machine.examples} "
            f"examples, {time.monotonic() - began:.0f} s{seeded}; {world.acts} acts: {acts}",
        )
    assert machine.steps >= examples


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
    machine.put("beta", f"{A}x", "ddd", None)
    machine.retire_what_another_wants("beta", A, None)
    assert world.counted["copy retired"]
    for name in ALL:
        machine.restore(name, 40)
    machine.check()


def test_content_put_again_by_a_clock_ahead_outlives_what_others_say_by_theirs(world: World) -> None:
    """The others cannot know: that it was put again is told to nobody."""
    machine = machine_of(world)()
    machine.begin([("alpha", B), ("beta", B)], [("beta", f"{B}x", "ccc"), ("beta", f"{B}x", "a")])
    machine.settle()
    machine.clock("beta", 3600)
    machine.put("beta", f"{B}x", "a", None)
    machine.settle()
    machine.put("alpha", f"{B}x", "ddd", None)
    assert machine.truth[f"{B}x"].outcomes() == {"a"}
    machine.check()


def test_a_federation_is_what_a_dictionary_says(world: World, record_property: Tell) -> None:
    explore(world, record_property, examples=5, steps=12)


# Some 5,500 steps in a quarter of an hour for two workers, each of which takes one shard. MODEL_SEED repeats a run.
@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("shard", [pytest.param(one, marks=pytest.mark.xdist_group(f"shard {one}")) for one in (0, 1)])
def test_a_federation_is_what_a_dictionary_says_for_long(world: World, record_property: Tell, shard: int) -> None:
    del shard
    number = int(os.environ.get("MODEL_SEED", secrets.randbits(32)))
    explore(world, record_property, examples=80, steps=30, number=number)
