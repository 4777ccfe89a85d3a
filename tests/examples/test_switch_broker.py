"""One program on five brokers: the configurations differ, the code and what it prints do not."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tomllib
from collections.abc import Callable
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
CONFIGURATIONS = ROOT / "examples" / "switch_broker"
FIVE = ["kafka", "memory", "rabbitmq", "rocketmq", "sqlite"]
TOTALS = """\
north: 792.00
south: 794.00
west: 796.00
dead: refund-nowhere (nova.errors.Reject: no shop 'nowhere')
"""


def test_there_are_five_configurations_and_each_names_its_broker() -> None:
    found = {path.stem: tomllib.loads(path.read_text(encoding="utf-8")) for path in CONFIGURATIONS.glob("*.toml")}

    assert sorted(found) == FIVE
    assert all(values["broker"] == name for name, values in found.items())


@pytest.mark.parametrize("broker", FIVE)
def test_the_totals_are_the_same_on_every_broker(broker: str, tmp_path: Path) -> None:
    prefix = f"S{os.getpid()}-{secrets.token_hex(3)}"
    variables, clean = place(broker, prefix)
    config = tmp_path / "nova.toml"
    given = (CONFIGURATIONS / f"{broker}.toml").read_text(encoding="utf-8")
    assert given.count('topic_prefix = "SWITCH"') == 1
    config.write_text(
        given.replace('"SWITCH"', f'"{prefix}"'), encoding="utf-8"
    )  # the servers are shared with other tests
    try:
        for _ in range(2):  # a second run finds what the first has left on the broker
            finished = subprocess.run(
                [sys.executable, "-m", "examples.switch_broker", str(config)],
                cwd=tmp_path,
                env={**os.environ, **variables, "PYTHONPATH": str(ROOT)},
                capture_output=True,
                text=True,
                timeout=90,
                check=False,
            )
            assert finished.returncode == 0, finished.stderr
            assert finished.stdout == TOTALS
    finally:
        clean()


def place(broker: str, prefix: str) -> tuple[dict[str, str], Callable[[], None]]:
    """The variables that a configuration reads, and what drops the run's topics."""
    if broker == "kafka":
        address = shared_address()
        return {"KAFKA": address}, lambda: delete_topics(address, prefix)
    if broker == "rabbitmq":
        url = rabbitmq_finding.shared_address()
        return {"RABBITMQ": url}, lambda: delete_prefix(url, prefix)
    if broker == "rocketmq":
        section = rocketmq_section(rocketmq_finding.shared_address())
        endpoints, admin = section["endpoints"], section["admin"]
        return (
            {"ROCKETMQ": endpoints, "ROCKETMQ_ADMIN": admin},
            lambda: rocketmq_cleaning.delete_prefix(endpoints, admin, prefix),
        )
    return {}, lambda: None
