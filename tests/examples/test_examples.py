"""Runs each example as its reader would, and reads what it prints. The flights demo has tests of its own."""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.kafka.finding import shared_address
from tests.servers.kafka.server import delete_topics
from tests.servers.rabbitmq import finding as rabbitmq_finding
from tests.servers.rabbitmq.cleaning import delete_prefix
from tests.servers.rocketmq import cleaning as rocketmq_cleaning
from tests.servers.rocketmq import finding as rocketmq_finding
from tests.servers.rocketmq.server import section as rocketmq_section

ROOT = Path(__file__).parents[2]
SECONDS = 30
"""The longest an example may take; each takes about one."""

NOT_EXAMPLES = {"__init__", "broker"}
OWN_BROKER = {"custom_driver"}
"""It is a broker; `test_custom_driver.py` has more of it."""
ON_MEMORY = {"testing_handlers", "typed_tasks"}
"""They choose the memory driver themselves: `drain`, which they show, is for that one."""

TOLD = {
    "quickstart": """
        stored for ada@example.org in queue 'default', priority NORMAL
        waiting: 3
        sent to ada@example.org
        sent to grace@example.org
        sent to linus@example.org
    """,
    "delayed": """
        due_at is an aware UTC datetime: True
        delayed: 3
    """,
    "retry_and_dead_letter": """
        runs: buggy 3, busy 2, flaky 3, refused 1
        dead letter buggy: retries exhausted, attempt 3, KeyError
        dead letter refused: rejected, attempt 1, Reject
        requeued: 1
        purged: 1
        dead letters left: 0
    """,
    "typed_tasks": """
        parcel 1 to Springfield, express: False
        parcel 3 to Springfield, express: True
        parcel 2 to Springfield, express: False
        ran 2 decorated tasks
        refused: task 'parcel.send': the arguments do not fit its signature: Expected `int`, got `str` - at `$.order_id`
        invoice 7 of 2026-01-31: 99.5
        address in Shelbyville
        signup of ada@example.org
        does not fit: task too-young (type 'signup'): payload does not fit Signup: 1 validation error for Signup
    """,
    "fastapi_service": """
        order 1: 202 NORMAL
        order 3: 202 HIGH
        queue: {'waiting': 3, 'running': 0, 'dead': 0}
        queue: {'waiting': 0, 'running': 0, 'dead': 0}
        confirmed order 1 to 1@example.org
        confirmed order 2 to 2@example.org
        confirmed order 3 to 3@example.org
    """,
    "testing_handlers": """
        passed: test_sends_one_mail
        passed: test_tries_again_when_the_mail_server_is_away
        passed: test_gives_up_after_three_runs_and_keeps_the_task
        passed: test_rejects_what_is_no_address
        passed: test_delayed_tasks_wait
    """,
    "batches": """
        accepted: 230
        loaded: 228
        dead letter row-11: rejected: nova.errors.Reject: no amount
        dead letter row-99: rejected: nova.errors.Reject: no amount
    """,
    "django_service": """
        order 1 of ada@example.org: 201
        order 2 of grace@example.org: 201
        order 1 of mallory@example.org: 409
        stored: 2, enqueued: 2
        confirmed order 1 to ada@example.org
        confirmed order 2 to grace@example.org
    """,
    "two_groups": """
        billing: 10 runs, order-3 ran 3 times
        billing: dead letters ['order-5']
        shipping: 8 runs, order-3 ran 1 times
        shipping: dead letters []
    """,
    "custom_codec": """
        zipped to less than a tenth: True
        as-json: 500 rows
        as-zipped-json: 500 rows
    """,
    "custom_driver": """
        shipping: {'order-0': 1, 'order-1': 2, 'order-2': 1, 'order-3': 1, 'order-4': 1}
        billing: {'order-0': 1, 'order-1': 2, 'order-2': 1, 'order-3': 1, 'order-4': 1}
    """,
    "priorities": """
        all 180 ran
    """,
}


def run(name: str, *arguments: str, url: str | None = None) -> str:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("NOVA_")}
    if url is not None:
        environment["NOVA_URL"] = url
    finished = subprocess.run(
        [sys.executable, "-m", f"examples.{name}", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "Traceback" not in finished.stderr, finished.stderr
    return finished.stdout


def number(pattern: str, text: str) -> float:
    found = re.search(pattern, text)
    assert found is not None, f"no {pattern!r} in:\n{text}"
    return float(found[1])


def test_every_example_is_run_here() -> None:
    written = {path.stem for path in (ROOT / "examples").glob("*.py")}

    assert written - NOT_EXAMPLES == set(TOLD)


UNTOLD = ("delayed: 3",)
"""What RabbitMQ and RocketMQ do not tell: they have no call for how many tasks are due later."""


@pytest.fixture(params=["sqlite", "memory", "kafka", "rabbitmq", "rocketmq"])
def url(request: pytest.FixtureRequest) -> Iterator[str | None]:
    """What `NOVA_URL` says; None = it is not set, and an example makes a SQLite file."""
    prefix = f"E{os.getpid()}-{secrets.token_hex(3)}"
    if request.param == "rabbitmq":
        address = rabbitmq_finding.shared_address()
        yield f"{address}?topic_prefix={prefix}"
        delete_prefix(address, prefix)
        return
    if request.param == "rocketmq":
        address = rocketmq_finding.shared_address()
        yield f"{address}&topic_prefix={prefix}&poll_timeout=0.3"
        place = rocketmq_section(address)
        rocketmq_cleaning.delete_prefix(place["endpoints"], place["admin"], prefix)
        return
    if request.param != "kafka":
        yield {"sqlite": None, "memory": "memory://shared"}[request.param]
        return
    address = shared_address()
    yield f"kafka://{address}?topic_prefix={prefix}&partitions=2&replication_factor=1"
    delete_topics(address, prefix)


@pytest.mark.parametrize("name", sorted(set(TOLD) - ON_MEMORY - OWN_BROKER))
def test_example_prints_what_it_promises_on_every_broker(name: str, url: str | None) -> None:
    printed = run(name, url=url).splitlines()

    untold = UNTOLD if url is not None and url.startswith(("amqp:", "rocketmq:")) else ()
    for line in TOLD[name].strip().splitlines():
        assert line.strip() in printed or line.strip() in untold


@pytest.mark.parametrize("name", sorted(ON_MEMORY | OWN_BROKER))
def test_example_prints_what_it_promises(name: str) -> None:
    printed = run(name).splitlines()

    for line in TOLD[name].strip().splitlines():
        assert line.strip() in printed


def test_example_takes_its_broker_from_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "kept.db"

    run("quickstart", f"sqlite:///{file}", url="memory://not-this-one")

    assert file.exists()


def test_delayed_example_never_runs_early(url: str | None) -> None:
    printed = run("delayed", url=url)

    for name in ("in-0.4-s", "in-700-ms", "at-an-instant"):
        assert f"{name}: never early True" in printed


def test_priorities_example_shows_shares_and_overtaking(url: str | None) -> None:
    printed = run("priorities", url=url)

    shares = [number(rf"{name} (\d+)", printed) for name in ("HIGH", "NORMAL", "LOW")]
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] > 0, "low starved"
    assert number(r"started after (\d+) of 400 low ones", printed) < 200


def test_batches_example_loads_in_bulk(url: str | None) -> None:
    printed = run("batches", url=url)

    assert number(r"batches: (\d+)", printed) <= 8
    assert number(r"the largest of (\d+) tasks", printed) == 100


def test_handlers_test_file_passes_under_pytest() -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "examples/testing_handlers.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )

    assert "5 passed" in finished.stdout, finished.stdout + finished.stderr
