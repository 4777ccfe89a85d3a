from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conformance.brokers import NAMES, SKIPS, Broker, make


@pytest.fixture(params=NAMES)
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker]:
    own_server = request.node.get_closest_marker("own_server") is not None
    made = make(request.param, tmp_path, own_server=own_server)
    yield made
    made.close()


@pytest.fixture
def requires(broker: Broker) -> Callable[[str], None]:
    """Skip a scenario where the pinned table allows it."""

    def check(scenario: str) -> None:
        reason = SKIPS.get((broker.name, scenario))
        if reason is not None:
            pytest.skip(f"{broker.name}: {scenario}: {reason}")

    return check
