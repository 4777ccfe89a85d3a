"""What is written from the code is what the code says now; the schema refuses what is wrong and only that."""

from __future__ import annotations

import inspect
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from nova import ConfigError, config
from nova.config.environment import VARIABLES
from nova.config.names import DRIVERS, SECTIONS
from nova.options import settle
from tests.docs.reference.described import Described, sections, singles
from tests.docs.reference.files import PAGE, SCHEMA, written
from tests.docs.reference.schema import schema
from tests.docs.test_snippets import PAGES, blocks_of

VALIDATOR = Draft202012Validator(schema())
OPTIONS = [*singles(), *(option for found in sections().values() for option in found)]


def refuses(values: dict[str, Any]) -> bool:
    return not VALIDATOR.is_valid(values)


@pytest.mark.parametrize("file", written(), ids=lambda file: file.name)
def test_what_is_written_from_the_code_is_that_of_the_code(file: Path) -> None:
    assert file.read_text(encoding="utf-8") == written()[file], f"docs/{file.name} is out of date; run `make reference`"


def test_every_section_has_a_table_in_the_page() -> None:
    for name in ("queue", *DRIVERS, *SECTIONS):
        assert f"<!-- options: {name} -->\n| option " in PAGE.read_text(encoding="utf-8"), name


def test_every_option_has_a_meaning_and_its_very_variable() -> None:
    for option in OPTIONS:
        assert len(option.meaning) > 5, option
        assert option.kind == "object" or VARIABLES[option.variable][-1] == option.name
    assert sum(option.kind == "object" for option in OPTIONS) == 1, "oauth_token alone is an object"
    assert len(OPTIONS) - 1 == len(VARIABLES)


def test_every_number_has_bounds() -> None:
    numbers = {"integer", "number", "seconds"}
    for section, function in {**DRIVERS, **SECTIONS}.items():
        for option in sections()[section]:
            annotation = str(inspect.signature(function).parameters[option.name].annotation)
            assert (option.kind in numbers) == annotation.startswith(("int", "float")), option


BOUNDED = [option for option in OPTIONS if option.bound is not None]


@pytest.mark.parametrize("option", BOUNDED, ids=lambda option: f"{option.section}.{option.name}")
def test_the_bounds_of_the_table_are_those_of_the_checks(option: Described) -> None:
    assert option.bound is not None
    least, most = option.bound.least, option.bound.most
    outside = [least - 1] if most is None else [least - 1, most + 1]
    for value in outside:
        if value != getattr(option.bound, "besides", None):
            assert refuses(section_with(option, value))
            with pytest.raises(ConfigError, match=option.name):
                settle(config.from_config(section_with(option, value)))
    for value in [least] if most is None else [least, most]:
        assert not refuses(section_with(option, value))
        settle(config.from_config(beside(option, section_with(option, value))))


def section_with(option: Described, value: object) -> dict[str, Any]:
    needed: dict[str, dict[str, Any]] = {
        "kafka": {"bootstrap_servers": "a:1"},
        "rabbitmq": {"url": "amqp://a"},
        "rocketmq": {"endpoints": "a"},
        "delay_slots": {"count": 2, "duration": 60},
    }
    return {option.section: {**needed.get(option.section, {}), option.name: value}}


def beside(option: Described, values: dict[str, Any]) -> dict[str, Any]:
    """Kafka's `max_poll_interval` is at least its `session_timeout`, and twice its `revoke_grace`."""
    follows = {"session_timeout": {"max_poll_interval": 86_400}, "revoke_grace": {"max_poll_interval": 86_400}}
    least = {"max_poll_interval": {"session_timeout": 1, "revoke_grace": 0}}
    return {option.section: {**values[option.section], **{**follows, **least}.get(option.name, {})}}


def test_the_schema_is_a_schema() -> None:
    Draft202012Validator.check_schema(json.loads(SCHEMA.read_text(encoding="utf-8")))


@pytest.mark.parametrize("name", [page.name for page in PAGES])
def test_every_configuration_of_the_docs_is_right(name: str) -> None:
    (found,) = [page for page in PAGES if page.name == name]
    for block in blocks_of(found):
        if block.language == "toml":
            assert list(VALIDATOR.iter_errors(tomllib.loads(block.text))) == []


GOOD: list[dict[str, Any]] = [
    {},
    {"broker": "memory", "memory": {}, "sqlite": {"path": "x", "lease": 0.5}},
    {"group_id": "a-b_C9", "topic_prefix": "SHOP", "message_format": "sonic", "queues": ["default", "imports"]},
    {"kafka": {"bootstrap_servers": "a:1", "replication_factor": -1, "tls": True, "client_config": {"linger.ms": 5}}},
    {"kafka": {"bootstrap_servers": "a:1", "session_timeout": 4.5, "reclaim": False}},
    {"rabbitmq": {"url": "amqp://a", "username": "u", "password": "p", "prefetch": 0}},
    {"rocketmq": {"endpoints": "a", "admin": "", "consumer_model": "clustering"}},
    {"retry": {"max_retries": 0, "jitter": 1}, "priority_weights": {"reserve": 0}},
]

BAD: list[dict[str, Any]] = [
    {"group": "x"},
    {"group_id": "no dots."},
    {"group_id": ""},
    {"group_id": 5},
    {"topic_prefix": "x" * 51},
    {"message_format": "xml"},
    {"broker": "kafak"},
    {"queues": "default"},
    {"queues": []},
    {"queues": ["a", "a"]},
    {"sqlite": {"pth": "x"}},
    {"sqlite": {"path": ""}},
    {"sqlite": {"path": 5}},
    {"sqlite": 5},
    {"kafka": {}},
    {"kafka": {"bootstrap_servers": "a:1", "tls": "yes"}},
    {"kafka": {"bootstrap_servers": "a:1", "tls": 1}},
    {"kafka": {"bootstrap_servers": "a:1", "partitions": "6"}},
    {"kafka": {"bootstrap_servers": "a:1", "replication_factor": 0}},
    {"kafka": {"bootstrap_servers": "a:1", "sasl_mechanism": "GSSAPI"}},
    {"kafka": {"bootstrap_servers": "a:1", "client_config": "linger.ms=5"}},
    {"kafka": {"bootstrap_servers": "a:1", "auto_commit": True}},
    {"rocketmq": {"endpoints": "a", "consumer_model": "broadcasting"}},
    {"rocketmq": {"endpoints": "a", "queues_per_topic": True}},
    {"retry": {"jitter": 1.1}},
    {"retry": {"policy": "mine"}},
    {"delay_slots": {"count": 24}},
    {"priority_weights": {"high": 0}},
]


@pytest.mark.parametrize("values", GOOD)
def test_what_is_right_is_taken_by_both(values: dict[str, Any]) -> None:
    assert list(VALIDATOR.iter_errors(values)) == []
    for driver in [name for name in DRIVERS if name in values] or ["sqlite"]:
        settle(config.from_config({**values, "broker": driver}))


@pytest.mark.parametrize("values", BAD)
def test_what_is_wrong_is_refused_by_both(values: dict[str, Any]) -> None:
    assert refuses(values)
    with pytest.raises(ConfigError):
        settle(config.from_config(values))


def test_any_value_may_be_a_variable() -> None:
    kafka = {
        "bootstrap_servers": "${A}",
        "partitions": "${N}",
        "tls": "${T}",
        "sasl_mechanism": "${M}",
        "password": "${P}",
    }
    values = {"broker": "${B}", "group_id": "${G}-x", "queues": ["${Q}"], "kafka": kafka, "retry": {"base": "${N}"}}
    assert list(VALIDATOR.iter_errors(values)) == []
