"""Bisection: whom a failed batch is charged to, and whom never."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nova.bisection import Heard, Pause, Run, Verdict, isolate


class Sink:
    """Runs steps against a rule of what fails; counts runs and pauses."""

    def __init__(self, fails: Callable[[Sequence[int]], bool], *, others_ok: bool = False) -> None:
        self.fails = fails
        self.others_ok = others_ok
        self.done: set[int] = set()
        self.runs = 1
        self.outages = 0

    def drive(self, tasks: Sequence[int], charged: Sequence[int] = (), rounds: int = 3) -> Verdict[int]:
        steps = isolate(tasks, set(charged).__contains__, rounds)
        step = next(steps)
        while True:
            ok = True
            if isinstance(step, Pause):
                self.outages += step.outage
            else:
                assert isinstance(step, Run)
                assert step.tasks
                assert not self.done & set(step.tasks), "a done task is never run again"
                self.runs += 1
                ok = not self.fails(step.tasks)
                if ok:
                    self.done |= set(step.tasks)
            try:
                step = steps.send(Heard(ok, self.others_ok))
            except StopIteration as stop:
                verdict: Verdict[int] = stop.value
                return verdict


sizes = st.integers(1, 300)


@given(size=sizes)
def test_a_passing_fault_costs_one_more_run(size: int) -> None:
    sink = Sink(lambda _: False)
    verdict = sink.drive(range(size))
    assert (verdict, sink.runs) == (Verdict(), 2)
    assert sink.done == set(range(size))


@given(size=st.integers(2, 5000), data=st.data())
def test_one_poison_task_is_isolated_and_all_others_done(size: int, data: st.DataObject) -> None:
    poison = data.draw(st.integers(0, size - 1))
    sink = Sink(lambda tasks: poison in tasks)
    verdict = sink.drive(range(size))
    assert verdict.charged == [poison]
    assert verdict.uncharged == []
    assert sink.done == set(range(size)) - {poison}
    assert sink.runs <= 2 + 4 * math.ceil(math.log2(size)) + 2


@given(size=st.integers(2, 400), data=st.data())
def test_only_poison_is_ever_charged_and_every_round_gets_somewhere(size: int, data: st.DataObject) -> None:
    poison = data.draw(st.sets(st.integers(0, size - 1), min_size=1, max_size=size))
    sink = Sink(lambda tasks: bool(poison & set(tasks)))
    verdict = sink.drive(range(size))
    left = set(verdict.charged) | set(verdict.uncharged)
    assert set(verdict.charged) <= poison, "an innocent task is never charged"
    assert left | sink.done == set(range(size)), "every task is done or given back"
    assert not left & sink.done
    assert not sink.done & poison
    if not verdict.outage:
        assert sink.done, "a round that is no outage makes progress"


@given(size=sizes)
def test_an_outage_charges_nobody_and_runs_little(size: int) -> None:
    sink = Sink(lambda _: True)
    verdict = sink.drive(range(size), rounds=3)
    assert verdict.outage
    assert verdict.charged == []
    assert sorted(verdict.uncharged) == list(range(size))
    assert sink.outages == 3
    assert sink.runs <= 2 + 3 + 3 * 2


def test_a_task_charged_before_is_charged_again_at_the_end_of_an_outage() -> None:
    verdict = Sink(lambda _: True).drive([1, 2, 3], charged=[2])
    assert (verdict.charged, sorted(verdict.uncharged)) == ([2], [1, 3])


def test_a_lone_task_is_charged_only_while_others_succeed() -> None:
    assert Sink(lambda _: True, others_ok=True).drive([1]) == Verdict([1], [])
    assert Sink(lambda _: True).drive([1]) == Verdict([], [1], outage=True)


def test_a_sink_that_comes_back_in_an_outage_round_loads_the_whole() -> None:
    calls = 0

    def fails(_: Sequence[int]) -> bool:
        nonlocal calls
        calls += 1
        return calls < 6

    sink = Sink(fails)
    assert sink.drive(range(10)) == Verdict()
    assert sink.done == set(range(10))


@pytest.mark.parametrize(
    ("size", "count"), [(1, 0), (100, 1), (100, 10), (100, 50), (100, 90), (1000, 30), (1000, 300)]
)
def test_however_many_are_poison_exactly_those_are_buried(size: int, count: int) -> None:
    """What is left comes back as one batch, in a queue where nothing else succeeds; max_retries is 3."""
    chance = random.Random(5)
    poison = set(chance.sample(range(size), count))
    left = list(range(size))
    attempts, accused, buried = Counter(range(size)), set[int](), set[int]()
    searches = 0
    while left and poison & set(left):
        chance.shuffle(left)
        sink = Sink(lambda tasks: bool(poison & set(tasks)))
        verdict = sink.drive(left, charged=[task for task in left if attempts[task] > 1 or task in accused])
        attempts.update(verdict.charged)
        buried |= {task for task in verdict.charged if attempts[task] > 4}
        if not verdict.outage:
            accused |= set(verdict.uncharged)
        left = [task for task in verdict.charged if task not in buried] + verdict.uncharged
        searches += 1
        assert searches < 400
    assert buried == poison


def test_two_poison_tasks_in_different_halves_are_no_outage() -> None:
    sink = Sink(lambda tasks: bool({1, 900} & set(tasks)))
    verdict = sink.drive(range(1000))
    assert not verdict.outage
    assert set(verdict.charged) <= {1, 900}
    assert len(sink.done) > 900
