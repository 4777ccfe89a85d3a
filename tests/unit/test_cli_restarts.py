"""Which worker processes a supervisor starts again, and after what wait."""

from __future__ import annotations

import pytest

from nova.cli.restarts import HEALTHY, Again, GiveUp, Life, how_it_ended, verdict


def died(
    code: int = -9, *, was_starting: bool = True, was_ready: bool = True, seconds: float = 1.0, deaths: int = 0
) -> Life:
    return Life(code, was_starting, was_ready, seconds, deaths)


@pytest.mark.parametrize("code", [-9, 0, 1, 2, 75])
def test_what_was_ready_is_started_again_whatever_ended_it(code: int) -> None:
    assert verdict(died(code), proven=True, random=0.5) == Again(0.5, 1)


def test_waits_double_up_to_a_cap() -> None:
    deaths, waits = 0, []
    for _ in range(8):
        again = verdict(died(deaths=deaths), proven=True, random=0.5)
        assert isinstance(again, Again)
        deaths = again.deaths
        waits.append(again.delay)
    assert waits == [0.5, 1, 2, 4, 8, 16, 30, 30]


def test_a_long_life_forgets_the_deaths_before() -> None:
    assert verdict(died(deaths=6, seconds=HEALTHY), proven=True, random=0.5) == Again(0.5, 1)
    assert verdict(died(deaths=6, seconds=HEALTHY - 1), proven=True, random=0.5) == Again(30, 7)


@pytest.mark.parametrize(("code", "end"), [(1, 1), (2, 2), (75, 75), (-9, 1), (0, 1)])
def test_the_first_that_cannot_start_ends_all_with_its_code(code: int, end: int) -> None:
    assert verdict(died(code, was_starting=False, was_ready=False), proven=False, random=0.5) == GiveUp(end)


@pytest.mark.parametrize("code", [0, 1, 2])
def test_an_error_of_the_first_start_ends_all(code: int) -> None:
    assert verdict(died(code, was_ready=False), proven=False, random=0.5) == GiveUp(code or 1)


@pytest.mark.parametrize("code", [3, 75, -9, -11])
def test_a_task_may_have_killed_the_first_before_it_was_ready(code: int) -> None:
    assert verdict(died(code, was_ready=False), proven=False, random=0.5) == Again(0.5, 1)


def test_later_only_a_wrong_module_or_configuration_ends_all() -> None:
    assert verdict(died(2, was_ready=False), proven=True, random=0.5) == GiveUp(2)
    assert verdict(died(1, was_ready=False), proven=True, random=0.5) == Again(0.5, 1)


def test_an_end_is_described() -> None:
    assert how_it_ended(-9) == "was killed by SIGKILL"
    assert how_it_ended(75) == "exited with 75"
    assert how_it_ended(0) == "exited with 0"
    assert how_it_ended(-99) == "was killed by signal 99"
