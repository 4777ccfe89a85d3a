"""Configuration: the same options as code, from a mapping, TOML, a URL or the environment."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from nova import ConfigError, Task, TaskQueue, config, options
from nova.brokers.memory.config import MemoryConfig
from nova.brokers.sqlite.config import SQLiteConfig
from nova.config import names
from nova.options import DelaySlots, QueueSettings, Weights, settle
from nova.retry import ExponentialBackoff

FULL = """
broker = "sqlite"
group_id = "billing"
topic_prefix = "SHOP"
message_format = "blob"
queues = ["default", "imports"]

[sqlite]
path = "shop.db"
lease = 12.5
max_bytes = 1000000

[memory]
name = "tests"

[retry]
max_retries = 7
base = 0.5
cap = 9
jitter = 0

[delay_slots]
count = 24
duration = 3600

[priority_weights]
high = 10
reserve = 4
"""


def settings(source: Any) -> QueueSettings:
    return settle(config.from_config(source))


def test_a_file_sets_every_option(tmp_path: Path) -> None:
    (tmp_path / "nova.toml").write_text(FULL)
    found = settings(tmp_path / "nova.toml")
    assert found.driver == SQLiteConfig(path="shop.db", lease=12.5, max_bytes=1_000_000)
    assert (found.group_id, found.topic_prefix, found.codec.name) == ("billing", "SHOP", "blob")
    assert found.queues == ("default", "imports")
    assert found.retry == ExponentialBackoff(7, 0.5, 9.0, 0.0)
    assert found.delay_slots == DelaySlots(24, 3600.0)
    assert found.weights == Weights((10, 3, 1), 4)


def test_one_line_switches_the_broker(tmp_path: Path) -> None:
    (tmp_path / "nova.toml").write_text(FULL.replace('broker = "sqlite"', 'broker = "memory"'))
    assert settings(tmp_path / "nova.toml").driver == MemoryConfig(name="tests")


def test_defaults_are_those_of_the_code() -> None:
    found, code = settings({}), settle([])
    assert found.driver == code.driver == SQLiteConfig()
    assert (
        (found.group_id, found.topic_prefix) == ("TASK_QUEUE_GROUP", "TASK_QUEUE") == (code.group_id, code.topic_prefix)
    )
    assert (found.retry, found.queues, found.weights) == (code.retry, code.queues, code.weights)
    assert found.codec.name == code.codec.name == "json"


def test_every_function_of_options_can_be_configured_or_needs_an_object() -> None:
    needs_an_object = {"with_codec", "with_driver", "with_middleware"}
    reachable = {f.__name__ for table in (names.DRIVERS, names.SECTIONS, names.VALUES) for f in table.values()}
    public = {name for name in options.__all__ if name.startswith("with_")}
    assert public - needs_an_object == reachable | {"with_queues"}


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"group": "x"}, "unknown 'group'; did you mean 'group_id'"),
        ({"sqlite": {"pth": "x"}}, r"\[sqlite\]: unknown 'pth'; did you mean 'path'"),
        ({"retry": {"policy": 1}}, "unknown 'policy'"),
        ({"retry": {"max_retries": "3"}}, r"\[retry\]: with_retry\(max_retries\)"),
        ({"retry": 3}, "table of options"),
        ({"broker": "kafak"}, "unknown 'kafak'"),
        ({"sqlite": {}, "memory": {}}, "two drivers, .* say which by `broker`"),
        ({"delay_slots": {"count": 3}}, "'duration' is missing"),
        ({"queues": "default"}, r"write \['default'\]"),
        ({"queues": "default, imports"}, r"write \['default', 'imports'\]"),
        ({"sqlite": {"lease": "long"}}, "lease"),
        ("missing.toml", "cannot read missing.toml"),
    ],
)
def test_mistakes_are_named_with_the_nearest_name(source: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        TaskQueue.from_config(source)


def test_a_file_that_is_no_toml_is_named(tmp_path: Path) -> None:
    path = tmp_path / "nova.toml"
    path.write_text("broker = ")
    with pytest.raises(ConfigError, match=r"nova\.toml is no TOML"):
        TaskQueue.from_config(path)


@pytest.mark.parametrize(
    ("url", "driver"),
    [
        ("sqlite:///jobs.db", SQLiteConfig(path="jobs.db")),
        ("sqlite:////var/jobs.db?lease=9", SQLiteConfig(path="/var/jobs.db", lease=9.0)),
        ("sqlite://", SQLiteConfig()),
        ("sqlite:///with%20space.db", SQLiteConfig(path="with space.db")),
        ("memory://", MemoryConfig()),
        ("memory://shared?max_messages=5", MemoryConfig(name="shared", max_messages=5)),
    ],
)
def test_urls(url: str, driver: object) -> None:
    assert settle(config.from_url(url)).driver == driver


def test_a_url_carries_group_prefix_and_format() -> None:
    found = settle(config.from_url("memory://?group_id=g&topic_prefix=P&message_format=blob"))
    assert (found.group_id, found.topic_prefix, found.codec.name) == ("g", "P", "blob")


@pytest.mark.parametrize("url", ["redis://x", "sqlite:///x?leese=3", "nova.db", "", 5])
def test_wrong_urls_are_refused(url: Any) -> None:
    with pytest.raises(ConfigError):
        TaskQueue.from_url(url)


def test_a_url_of_sqlite_takes_no_user() -> None:
    with pytest.raises(ConfigError, match="takes a path, no user and no host; write sqlite:///relative") as refused:
        TaskQueue.from_url("sqlite://user:hunter2@host/nova.db")
    assert "hunter2" not in str(refused.value)


def test_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("NOVA_")]:
        monkeypatch.delenv(name)
    with pytest.raises(ConfigError, match="nothing names a broker; set NOVA_CONFIG"):
        TaskQueue.from_env()
    monkeypatch.setenv("NOVA_URL", "memory://env")
    TaskQueue.from_env().enqueue(Task("t"))
    assert TaskQueue.from_url("memory://env").depth().waiting == 1
    monkeypatch.setenv("NOVA_CONFIG", str(tmp_path / "nova.toml"))
    with pytest.raises(ConfigError, match="both set"):
        TaskQueue.from_env()
