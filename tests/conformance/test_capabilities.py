"""What each driver says of itself is pinned, so that no scenario is skipped unseen."""

from __future__ import annotations

import re
from pathlib import Path

from nova.brokers.base import Capabilities
from tests.conformance.brokers import NAMES, SKIPS, Broker

PINNED = {
    "memory": Capabilities(
        name="memory", durable=False, shared=False, max_body_bytes=64 << 20, after_fork="refuse", lease=None
    ),
    "sqlite": Capabilities(
        name="sqlite",
        durable=True,
        shared=True,
        max_body_bytes=64 << 20,
        after_fork="reopen",
        lease=2.0,
        housekeeping_every=2.0 / 3,
    ),
    "kafka": Capabilities(
        name="kafka",
        durable=True,
        shared=True,
        max_body_bytes=1 << 20,
        after_fork="refuse",
        lease=None,
        housekeeping_every=1.0,
        delay_p99=0.1,
    ),
    "rabbitmq": Capabilities(
        name="rabbitmq",
        durable=True,
        shared=True,
        max_body_bytes=8 << 20,
        max_unsettled=65_535,
        after_fork="reopen",
        lease=None,
        housekeeping_every=1.0,
        delay_p99=0.3,
    ),
    "rocketmq": Capabilities(
        name="rocketmq",
        durable=True,
        shared=True,
        max_body_bytes=4 << 20,
        after_fork="refuse",
        lease=3.0,
        housekeeping_every=1.0,
        delay_p99=1.5,
    ),
}

SKIP_NOTHING = {"kafka", "rabbitmq", "rocketmq"}
"""The drivers that show every scenario: they have a server, which can be paused and killed."""


def test_capabilities_are_the_pinned_ones(broker: Broker) -> None:
    driver = broker.driver()
    try:
        assert driver.capabilities == PINNED[broker.name]
    finally:
        driver.close()


def test_only_pinned_scenarios_are_ever_skipped() -> None:
    suite = Path(__file__).parent
    asked: set[str] = set()
    for file in suite.glob("test_*.py"):
        text = file.read_text(encoding="utf-8")
        asked |= set(re.findall(r'requires\("([^"]+)"\)', text))
        if file.name != "test_capabilities.py":
            assert "pytest.skip" not in text, f"{file.name} skips by itself; only requires(…) may"
            assert "xfail" not in text
    assert {scenario for _, scenario in SKIPS} == asked
    assert {name for name, _ in SKIPS} == set(NAMES) - SKIP_NOTHING
