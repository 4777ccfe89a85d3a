"""The retry policy and its decisions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nova import Reject, Retry
from nova.handlers import UnknownType
from nova.retry import Again, Bury, ExponentialBackoff, decide

policies = st.builds(
    ExponentialBackoff, st.integers(0, 20), st.floats(0, 100), st.floats(0, 1000), st.floats(0, 1, allow_nan=False)
)


@given(policy=policies, attempt=st.integers(1, 10_000), random=st.floats(0, 1, exclude_max=True))
def test_delays_keep_to_the_formula(policy: ExponentialBackoff, attempt: int, random: float) -> None:
    plain = min(policy.cap, policy.base * 2.0 ** min(attempt - 1, 1000))
    delay = policy.delay(attempt, random)
    assert plain * (1 - policy.jitter) - 1e-9 <= delay <= plain * (1 + policy.jitter) + 1e-9


def test_jitter_spreads_the_waits_over_its_whole_share() -> None:
    policy = ExponentialBackoff(jitter=0.1)
    assert policy.delay(1, 0.0) == pytest.approx(0.9)
    assert policy.delay(1, 0.5) == pytest.approx(1.0)
    assert policy.delay(1, 0.999999) == pytest.approx(1.1, abs=1e-4)


@given(policy=policies, own=st.one_of(st.none(), st.integers(0, 20)), attempt=st.integers(1, 40))
def test_attempts_end_after_one_plus_max_retries(policy: ExponentialBackoff, own: int | None, attempt: int) -> None:
    limit = policy.max_retries if own is None else own
    fate = decide(policy, own, attempt, RuntimeError(), 0.5)
    assert isinstance(fate, Again if attempt <= limit else Bury)


@pytest.mark.parametrize(
    ("error", "attempt", "fate"),
    [
        (Retry(delay=30), 1, Again(30)),
        (Retry(delay=0), 3, Again(0)),
        (Retry(), 2, Again(2.0)),
        (Retry(delay=30), 4, Bury("retries exhausted")),
        (Reject("no"), 1, Bury("rejected")),
        (UnknownType("x"), 1, Again(1.0)),
        (UnknownType("x"), 4, Bury("unknown type")),
    ],
)
def test_how_a_handler_steers(error: BaseException, attempt: int, fate: object) -> None:
    assert decide(ExponentialBackoff(jitter=0), None, attempt, error, 0.5) == fate
