"""What a RabbitMQ server's numbers mean: each trouble has its finding, and what AMQP does not tell its command."""

from __future__ import annotations

from typing import Any

import pytest

from nova.brokers.base import Finding
from nova.brokers.rabbitmq.limits import (
    NEEDED,
    QueueFacts,
    Right,
    ServerFacts,
    judge_queues,
    judge_rights,
    judge_server,
    judge_unread,
)


def server(**changed: Any) -> dict[str, Finding]:
    usual: dict[str, Any] = {
        "product": "RabbitMQ",
        "version": "4.1.3",
        "frame_max": 131_072,
        "channel_max": 2047,
        "capabilities": frozenset(NEEDED),
        "blocked": None,
    }
    return {found.name: found for found in judge_server(ServerFacts(**{**usual, **changed}))}


def test_a_server_as_it_comes_is_well() -> None:
    assert {found.severity for found in server().values()} == {"ok"}


@pytest.mark.parametrize(
    ("changed", "name", "severity", "words"),
    [
        ({"version": "3.9.29"}, "version", "harm", "3.9.29"),
        ({"version": "3.10.0"}, "version", "ok", "3.10.0"),
        ({"product": "LavinMQ", "version": "2.2.0"}, "version", "hint", "LavinMQ 2.2.0"),
        ({"capabilities": frozenset(NEEDED) - {"basic.nack"}}, "version", "harm", "without basic.nack"),
        ({"blocked": "low on disk"}, "alarms", "harm", "low on disk"),
        ({"frame_max": 65_536}, "frame_max", "hint", "65536 bytes"),
        ({"frame_max": 8192}, "frame_max", "harm", "8192 bytes"),
        ({"frame_max": 0}, "frame_max", "ok", "0 bytes"),
        ({"channel_max": 10}, "channel_max", "harm", "10 on"),
        ({"frame_max": 32_768}, "frame_max", "hint", "32768 bytes"),
        ({"frame_max": 131_072}, "frame_max", "ok", "131072 bytes"),
        ({"channel_max": 0}, "channel_max", "ok", "0 on"),
        ({"channel_max": 16}, "channel_max", "ok", "16 on"),
    ],
)
def test_each_trouble_of_a_server_has_its_number(changed: dict[str, Any], name: str, severity: str, words: str) -> None:
    found = server(**changed)[name]
    assert found.severity == severity
    assert words in found.found


def test_what_amqp_does_not_tell_has_a_command() -> None:
    found = {finding.name: finding for finding in judge_unread("3.10.8", 1200.0)}
    assert {finding.severity for finding in found.values()} == {"unread"}
    assert all(finding.fix.startswith("rabbitmqctl ") for finding in found.values())
    assert "1200 s" in found["consumer timeout"].meaning
    assert list(found) == ["consumer timeout", "delivery limit", "feature flags"]


@pytest.mark.parametrize(
    ("version", "severity"), [("3.11.28", "unread"), ("3.12.0", "ok"), ("4.0.1", "ok"), ("?", "unread")]
)
def test_newer_servers_require_the_feature_flags_that_nova_needs(version: str, severity: str) -> None:
    assert judge_unread(version, 1200.0)[-1].severity == severity


def test_queues_that_were_declared_otherwise_hurt() -> None:
    well = judge_queues([QueueFacts("g.T", is_there=True), QueueFacts("g.U", is_there=False)])
    assert [(found.severity, found.found.split(",")[0]) for found in well] == [("ok", "1 of 2 there")]
    (harm,) = judge_queues(
        [QueueFacts("g.T", is_there=True, refusal="inequivalent arg"), QueueFacts("g.U", is_there=True)]
    )
    assert (harm.severity, harm.found) == ("harm", "g.T: inequivalent arg")


@pytest.mark.parametrize(("kind", "word"), [("configure", "made"), ("write", "enqueued"), ("read", "workers")])
def test_a_missing_right_is_named_with_what_it_costs(kind: str, word: str) -> None:
    rights = [Right(kind, "T_…", "access refused"), Right("read", "g.T_…", None)]
    (found,) = judge_rights(rights)
    assert (found.severity, found.name) == ("harm", f"right to {kind}")
    assert "T_…" in found.found
    assert word in found.meaning


def test_rights_that_are_there_are_one_line() -> None:
    (found,) = judge_rights([Right("configure", "T_…", None), Right("read", "T_…", None)])
    assert (found.severity, found.found) == ("ok", "configure T_…; read T_…")
    assert judge_rights([]) == []
