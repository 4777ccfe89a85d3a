"""What the numbers of RocketMQ's proxies and brokers mean: each trouble has its finding, with the number and the way out."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from typing import Any

import pytest

from nova.brokers.base import Finding
from nova.brokers.rocketmq.config import RocketMQConfig
from nova.brokers.rocketmq.limits import (
    BrokerFacts,
    GroupFacts,
    ProxyFacts,
    judge_broker,
    judge_groups,
    judge_proxy,
    judge_topics,
)

SETTINGS = {
    "fileReservedTime": "720",
    "timerWheelEnable": "true",
    "timerMaxDelaySec": "259200",
    "timerPrecisionMs": "1000",
    "popConsumerKVServiceEnable": "true",
    "flushDiskType": "SYNC_FLUSH",
    "cleanFileForciblyEnable": "false",
    "diskSpaceCleanForciblyRatio": "85",
    "diskSpaceWarningLevelRatio": "90",
}
RUNTIME = {"brokerVersionDesc": "V5_4_0", "commitLogDiskRatio": "0.84"}


def proxy(config: dict[str, Any] | None = None, **changed: int | None) -> dict[str, Finding]:
    usual: dict[str, int | None] = {
        "max_body_bytes": 4 << 20,
        "least_invisible_ms": 10_000,
        "most_invisible_ms": 43_200_000,
        "most_delay_ms": 86_400_000,
    }
    facts = ProxyFacts(**{**usual, **changed})
    return {found.name: found for found in judge_proxy(facts, RocketMQConfig(endpoints="h:1", **(config or {})))}


def broker(config: dict[str, Any] | None = None, **changed: str | None) -> dict[str, Finding]:
    """What is found with a setting, or something that the running broker tells, changed; None = it is not told."""
    told = {name: value for name, value in {**SETTINGS, **RUNTIME, **changed}.items() if value is not None}
    runtime = {name: told.pop(name) for name in RUNTIME if name in told}
    facts = BrokerFacts("a", settings=told, runtime=runtime)
    return {found.name: found for found in judge_broker(facts, RocketMQConfig(endpoints="h:1", **(config or {})))}


def test_a_server_that_is_set_as_advised_is_well() -> None:
    assert {found.severity for found in [*proxy().values(), *broker().values()]} == {"ok"}


@pytest.mark.parametrize(
    ("config", "changed", "name", "severity", "words"),
    [
        ({"invisible_duration": 9.0}, {}, "invisible duration", "harm", "10000 to 43200000 ms"),
        ({"invisible_duration": 10.0}, {}, "invisible duration", "ok", "10000 to 43200000 ms"),
        ({"invisible_duration": 60.0}, {"most_invisible_ms": 60_000}, "invisible duration", "ok", "10000 to 60000 ms"),
        ({}, {"most_invisible_ms": 60_000}, "invisible duration", "harm", "10000 to 60000 ms"),
        ({}, {"least_invisible_ms": None}, "invisible duration", "unread", ""),
        ({}, {"max_body_bytes": 1 << 20}, "body size", "harm", "1048576 bytes"),
        ({}, {"max_body_bytes": None}, "body size", "unread", ""),
        ({}, {"most_delay_ms": 3_600_000}, "delay", "harm", "3600000 ms (1 h)"),
        ({}, {"most_delay_ms": None}, "delay", "unread", ""),
    ],
)
def test_each_limit_of_a_proxy_has_its_number(
    config: dict[str, Any], changed: dict[str, int | None], name: str, severity: str, words: str
) -> None:
    found = proxy(config, **changed)[name]
    assert found.severity == severity
    assert words in found.found
    assert bool(found.fix) is (severity != "ok")


@pytest.mark.parametrize(
    ("config", "changed", "name", "severity", "words"),
    [
        ({}, {"fileReservedTime": "72"}, "fileReservedTime of a", "harm", "72 h (3 days)"),
        ({}, {"fileReservedTime": None}, "fileReservedTime of a", "unread", ""),
        ({}, {"timerWheelEnable": "false"}, "timers of a", "harm", "timerWheelEnable=false"),
        ({"max_delay": 259_200.0}, {}, "timerMaxDelaySec of a", "ok", "259200 s"),
        ({"max_delay": 300_000.0}, {}, "timerMaxDelaySec of a", "harm", "259200 s"),
        ({"delay_guard": 0.9}, {}, "timerPrecisionMs of a", "harm", "1000 ms"),
        ({}, {"popConsumerKVServiceEnable": "false"}, "popConsumerKVServiceEnable of a", "harm", "false"),
        ({}, {"popConsumerKVServiceEnable": None}, "popConsumerKVServiceEnable of a", "harm", "not known"),
        ({}, {"flushDiskType": "ASYNC_FLUSH"}, "flushDiskType of a", "hint", "ASYNC_FLUSH"),
        ({}, {"commitLogDiskRatio": "0.89"}, "disk of a", "ok", "89 % used"),
        ({}, {"commitLogDiskRatio": "0.90"}, "disk of a", "harm", "90 % used"),
        ({}, {"commitLogDiskRatio": "0.68", "diskSpaceWarningLevelRatio": "60"}, "disk of a", "harm", "68 % used"),
        ({}, {"commitLogDiskRatio": "-1"}, "disk of a", "unread", ""),
        ({}, {"commitLogDiskRatio": None}, "disk of a", "unread", ""),
        ({}, {"cleanFileForciblyEnable": "true"}, "disk of a", "hint", "84 % used, cleanFileForciblyEnable=true"),
        ({}, {"cleanFileForciblyEnable": None}, "disk of a", "hint", "84 % used, cleanFileForciblyEnable=true"),
        ({}, {"cleanFileForciblyEnable": "true", "commitLogDiskRatio": "0.85"}, "disk of a", "harm", "85 % used"),
    ],
)
def test_each_setting_of_a_broker_has_its_number(
    config: dict[str, Any], changed: dict[str, str | None], name: str, severity: str, words: str
) -> None:
    found = broker(config, **changed)[name]
    assert found.severity == severity
    assert words in found.found
    assert bool(found.fix) is (severity != "ok")


@pytest.mark.parametrize(
    ("judge", "config", "changed", "name"),
    [
        (proxy, {}, {"max_body_bytes": 1_234_567}, "body size"),
        (proxy, {"max_delay": 5_000_000.0}, {"most_delay_ms": 1_234_567_891}, "delay"),
        (broker, {"max_delay": 5_000_000.0}, {"timerMaxDelaySec": "1234567"}, "timerMaxDelaySec of a"),
        (broker, {}, {"timerPrecisionMs": "2000"}, "timerPrecisionMs of a"),
    ],
)
def test_whoever_follows_the_advice_is_well(
    judge: Callable[..., dict[str, Finding]], config: dict[str, Any], changed: dict[str, Any], name: str
) -> None:
    advised = re.match(r"with_rocketmq\((\w+)=([\d.e+]+)\)", judge(config, **changed)[name].fix)
    assert advised is not None
    told = {**config, advised[1]: ast.literal_eval(advised[2])}
    assert judge(told, **changed)[name].severity == "ok"


def test_the_bounds_of_a_lease_are_named_in_its_unit() -> None:
    found = proxy({"invisible_duration": 9.0}, least_invisible_ms=10_500, most_invisible_ms=60_000)[
        "invisible duration"
    ]
    assert "from 10.5 to 60, or" in found.fix


@pytest.mark.parametrize(("retries", "severity"), [(16, "harm"), (99_999, "harm"), (100_000, "ok"), (None, "ok")])
def test_a_group_with_few_retries_hurts(retries: int | None, severity: str) -> None:
    (found,) = judge_groups([GroupFacts("g%T", "a", retries)])
    assert found.severity == severity
    assert ("-g 'g%T' -r 1000000" in found.fix) is (severity == "harm")


def test_missing_topics_hurt_only_if_they_cannot_be_made() -> None:
    (well,) = judge_topics({"T": "", "U": None}, can_make=True)
    assert (well.severity, well.found) == ("ok", "1 of 2 there; Nova makes U")
    (harm,) = judge_topics({"T": "", "U": None}, can_make=False)
    assert (harm.severity, harm.found) == ("harm", "missing: U")
    (wrong,) = judge_topics({"T": "topic 'T' is of the type FIFO", "U": None}, can_make=True)
    assert (wrong.severity, wrong.found) == ("harm", "topic 'T' is of the type FIFO")
