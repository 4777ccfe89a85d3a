"""Secrets stand in no text that Nova makes, and may be in files, which are read when a queue opens."""

from __future__ import annotations

import dataclasses
import inspect
import re
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nova import ConfigError, TaskQueue, config, with_driver, with_kafka, with_rabbitmq, with_rocketmq
from nova.brokers.loading import build_driver
from nova.brokers.secrets import read_secrets
from nova.config.names import DRIVERS
from nova.options import Option, settle

SECRET = "open-sesame"

CASES: dict[tuple[str, str], dict[str, Any]] = {
    ("kafka", "password"): {
        "bootstrap_servers": "a:1", "sasl_mechanism": "PLAIN", "username": "ada", "password": SECRET,
    },
    ("kafka", "key_password"): {
        "bootstrap_servers": "a:1", "tls": True, "cert_file": "c", "key_file": "k", "key_password": SECRET,
    },
    ("kafka", "client_config"): {
        "bootstrap_servers": "a:1", "client_config": {"sasl.oauthbearer.client.secret": SECRET, "ssl.key.pem": SECRET},
    },
    ("rabbitmq", "url"): {"url": f"amqp://ada:{SECRET}@host/v"},
    ("rabbitmq", "password"): {"url": "amqp://host/v", "username": "ada", "password": SECRET},
    ("rabbitmq", "key_password"): {
        "url": "amqps://host/v", "cert_file": "c", "key_file": "k", "key_password": SECRET,
    },
    ("rocketmq", "secret_key"): {"endpoints": "a", "access_key": "shop", "secret_key": SECRET},
}  # fmt: skip
"""A legal section for every option that holds a secret."""

FILES = [(driver, name) for driver, name in CASES if name not in ("client_config", "url")]
"""Those that may be in a file."""


def shown(error: BaseException) -> str:
    """What a log or a console shows of an error: its text, those it came from, and its repr."""
    return "".join(traceback.format_exception(error)) + repr(error)


def refusal(make: Callable[[], object]) -> str:
    with pytest.raises(ConfigError) as caught:
        make()
    return shown(caught.value)


def test_every_option_with_a_secret_is_in_the_tests_below() -> None:
    for driver, function in DRIVERS.items():
        for name in inspect.signature(function).parameters:
            if re.search("password|secret|token", name) and name != "oauth_token":  # a function: it has nothing to show
                assert (driver, name.removesuffix("_file")) in CASES, f"{driver}.{name}"


@pytest.mark.parametrize(("driver", "name"), CASES)
def test_no_repr_shows_it(driver: str, name: str) -> None:
    option = DRIVERS[driver](**CASES[driver, name])
    for thing in (option, option.value, settle([option]), TaskQueue(option)):
        assert SECRET not in repr(thing) + str(thing)
    assert SECRET in str(dataclasses.asdict(option.value)), "the case holds its secret"


@pytest.mark.parametrize(("driver", "name"), CASES)
@pytest.mark.parametrize("beside", ["max_body_bytes", "tls", "unknown_option", "group_id"])
def test_no_error_of_something_beside_it_shows_it(driver: str, name: str, beside: str) -> None:
    section = {**CASES[driver, name]}
    values = {"broker": driver, driver: section}
    if beside == "group_id":
        values["group_id"] = "no dots."
    else:
        section[beside] = "wrong"
    assert SECRET not in refusal(lambda: TaskQueue.from_config(values))


@pytest.mark.parametrize(("driver", "name"), [case for case in CASES if case[1] != "client_config"])
@pytest.mark.parametrize("wrap", [lambda value: [value], lambda value: {"a": value}, lambda value: value.encode()])
def test_no_error_about_its_type_shows_it(driver: str, name: str, wrap: Callable[[Any], object]) -> None:
    section = {**CASES[driver, name], name: wrap(CASES[driver, name][name])}
    assert SECRET not in refusal(lambda: TaskQueue.from_config({driver: section}))


@pytest.mark.parametrize(("driver", "name"), CASES)
def test_no_error_shows_a_section_that_is_none(driver: str, name: str) -> None:
    assert SECRET not in refusal(lambda: TaskQueue.from_config({driver: str(CASES[driver, name])}))
    assert SECRET not in refusal(lambda: TaskQueue.from_config({driver: [CASES[driver, name]]}))


@pytest.mark.parametrize(
    "text",
    [
        f'[kafka]\npassword = "{SECRET}"\npartitions = ',
        f"[kafka]\npassword = {SECRET}\n",
        f'[kafka]\npassword = "{SECRET}\n',
        f'[kafka]\npassword = "{SECRET}" "{SECRET}"\n',
        f'[kafka]\npassword "{SECRET}"\n',
        f'[kafka]\npassword = "{SECRET}"\npassword = "{SECRET}"\n',
        f"{SECRET}",
    ],
)
def test_no_error_of_a_file_that_is_no_toml_shows_it(text: str, tmp_path: Path) -> None:
    (tmp_path / "nova.toml").write_text(text)
    assert SECRET not in refusal(lambda: TaskQueue.from_config(tmp_path / "nova.toml"))


def test_no_error_of_a_file_in_another_encoding_shows_it(tmp_path: Path) -> None:
    (tmp_path / "nova.toml").write_bytes(f'[kafka]\npassword = "{SECRET}\xe9"'.encode("latin-1"))
    assert SECRET not in refusal(lambda: TaskQueue.from_config(tmp_path / "nova.toml"))


def test_no_error_about_what_was_given_instead_shows_it() -> None:
    url = f"amqp://ada:{SECRET}@host"
    mistakes: list[Callable[[], object]] = [
        lambda: TaskQueue(url),  # type: ignore[arg-type]
        lambda: TaskQueue({"rabbitmq": {"url": url}}),  # type: ignore[arg-type]
        lambda: TaskQueue(with_driver(url)),  # type: ignore[arg-type]
        lambda: TaskQueue.from_config(url),
        lambda: TaskQueue.from_config(Path(url)),
        lambda: TaskQueue.from_config({"broker": url}),
        lambda: TaskQueue.from_config({"broker": f"ada:{SECRET}@host"}),
        lambda: TaskQueue.from_config([url]),  # type: ignore[arg-type]
        lambda: TaskQueue.from_url([url]),  # type: ignore[arg-type]
        lambda: TaskQueue.from_url(f"redis://ada:{SECRET}@host"),
        lambda: TaskQueue.from_url(f"amqp://ada:{SECRET}#x@host"),
        lambda: TaskQueue.from_url(f"amqp://ada:a#{SECRET}"),
        lambda: TaskQueue(with_rabbitmq(f"ada:{SECRET}@host")),
        lambda: TaskQueue(with_rabbitmq(f"amqp://ada:{SECRET}@host:port")),
        lambda: TaskQueue(with_rabbitmq(url, password=SECRET)),
        lambda: TaskQueue(with_rabbitmq("amqp://host", password=SECRET)),
        lambda: TaskQueue(with_kafka(f"ada:{SECRET}@host:1")),
        lambda: TaskQueue(with_rocketmq(f"ada:{SECRET}@host:1")),
        lambda: TaskQueue(with_rocketmq("a", secret_key=SECRET)),
        lambda: config.from_environment({"NOVA_CONFIG": url}),
        lambda: config.from_environment({"NOVA_URL": url, "NOVA_RABBITMQ_PASSWORD": SECRET}),
        lambda: config.from_environment({"NOVA_RABBITMQ_PASSWRD": SECRET}),
    ]
    for mistake in mistakes:
        assert SECRET not in refusal(mistake)


# --- files


def with_file(driver: str, name: str, path: object) -> Option:
    section = {**CASES[driver, name], f"{name}_file": path}
    del section[name]
    return DRIVERS[driver](**section)


@pytest.mark.parametrize(("driver", "name"), FILES)
@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_secret_may_be_in_a_file(driver: str, name: str, end: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(f"{SECRET}{end}".encode())

    found = read_secrets(with_file(driver, name, str(tmp_path / "secret")).value)

    assert found == DRIVERS[driver](**CASES[driver, name]).value
    assert SECRET not in repr(found)


def test_a_secret_keeps_its_spaces_and_lines(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(" a b \n\n")
    assert read_secrets(with_file("kafka", "password", str(tmp_path / "secret")).value).password == " a b \n"


@pytest.mark.parametrize(("driver", "name"), FILES)
def test_a_file_is_read_when_the_queue_opens_and_not_before(driver: str, name: str, tmp_path: Path) -> None:
    option = with_file(driver, name, str(tmp_path / "secret"))
    TaskQueue(option)
    with pytest.raises(ConfigError, match=rf"^with_{driver}\({name}_file\): cannot read '.*secret': No such file"):
        build_driver(option.value)
    (tmp_path / "secret").write_text(SECRET)
    assert SECRET not in repr(build_driver(option.value))


@pytest.mark.parametrize(("driver", "name"), FILES)
@pytest.mark.parametrize(
    ("content", "words"), [(b"", "is empty"), (b"\n", "is empty"), (b"open-sesame\xff", "holds no UTF-8 text")]
)
def test_a_file_without_a_secret_is_one_error(
    driver: str, name: str, content: bytes, words: str, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_bytes(content)
    error = refusal(lambda: build_driver(with_file(driver, name, str(tmp_path / "secret")).value))
    assert re.search(rf"with_{driver}\({name}_file\): '.*secret' {words}", error)
    assert SECRET not in error


def test_a_directory_is_no_secret(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"with_kafka\(password_file\): cannot read .*: Is a directory"):
        build_driver(with_file("kafka", "password", str(tmp_path)).value)


@pytest.mark.parametrize(("driver", "name"), FILES)
def test_a_secret_and_its_file_are_one_too_many(driver: str, name: str) -> None:
    with pytest.raises(ConfigError, match=rf"{name} and {name}_file are both given; keep one"):
        DRIVERS[driver](**CASES[driver, name], **{f"{name}_file": "f"})
    for wrong in ("", 5):
        with pytest.raises(ConfigError, match=rf"\({name}_file\): expected text"):
            with_file(driver, name, wrong)


# --- RabbitMQ's user, in the URL or apart from it


@pytest.mark.parametrize(
    ("url", "options", "user"),
    [
        ("amqp://host", {}, ("guest", "guest")),
        ("amqp://ada:pw@host", {}, ("ada", "pw")),
        ("amqp://ada@host", {"password": "p@/w"}, ("ada", "p@/w")),
        ("amqp://host", {"username": "ada", "password": "pw"}, ("ada", "pw")),
    ],
)
def test_the_user_stands_in_the_url_or_apart(url: str, options: dict[str, Any], user: tuple[str, str]) -> None:
    address = with_rabbitmq(url, **options).value.address
    assert (address.username, address.password) == user


@pytest.mark.parametrize(
    ("url", "options", "words"),
    [
        ("amqp://ada@host", {}, "a user without a password; give user:password in the URL, password or password_file"),
        ("amqp://host", {"username": "ada"}, "a user without a password"),
        ("amqp://host", {"password": "x"}, r"\(password\): needs username, or user@ in the URL"),
        ("amqp://host", {"password_file": "x"}, r"\(password\): needs username"),
        ("amqp://ada:pw@host", {"password": "x"}, "the URL has a password already; keep one"),
        ("amqp://ada:pw@host", {"password_file": "x"}, "the URL has a password already; keep one"),
        ("amqp://ada:pw@host", {"username": "bob"}, "the URL has a user already; keep one"),
        ("amqp://:pw@host", {}, "expected user:password or user before the '@'"),
    ],
)
def test_a_user_that_is_said_twice_or_in_half_is_refused(url: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        with_rabbitmq(url, **options)
