"""docs/capabilities.md: what each driver says of itself with its default options."""

from __future__ import annotations

import dataclasses

from nova import with_kafka, with_memory, with_rabbitmq, with_rocketmq, with_sqlite
from nova.brokers.base import Capabilities, Driver
from nova.brokers.loading import build_driver
from nova.options import Option

__all__ = ["capabilities", "capabilities_page"]

MEANINGS = {
    "durable": "an accepted task survives the death of every process of yours",
    "shared": "other processes see the same broker",
    "max_body_bytes": "the largest body; a larger one is refused at `enqueue`",
    "max_unsettled": "the most tasks that one subscription of a worker may hold",
    "lease": "after so long the tasks of a silent process go to another; the server itself notices where there is none",
    "after_fork": "what happens to an open queue in a forked child; open queues after the fork where you can",
    "housekeeping_every": "how often a worker does the driver's chores",
    "delay_p99": "how late 99 of 100 delayed tasks may be at up to 200/s; never early",
}
WORDS = {"reopen": "opened anew", "refuse": "refused"}
SECONDS = {"lease", "housekeeping_every", "delay_p99"}

PAGE = """\
# Capabilities

What differs between the brokers. `make reference` writes this page from what each driver says of itself with its
default options; workers and the conformance suite ask the same, never a driver's name. All else is
[promised](delivery.md) alike on each of them; what an option changes is in [configuration.md](configuration.md),
what else to know of each broker in [brokers.md](brokers.md).

{table}
The rows are the fields of `Driver.capabilities` ([writing-a-driver.md](writing-a-driver.md#capabilities)).
"""


def capabilities() -> list[Capabilities]:
    """Those of every driver, the embedded ones first."""
    options: list[Option] = [
        with_memory(),
        with_sqlite("nova.db"),
        with_kafka("localhost:9092"),
        with_rabbitmq("amqp://localhost"),
        with_rocketmq("localhost:8081"),
    ]
    drivers: list[Driver] = [build_driver(option.value) for option in options]
    return [driver.capabilities for driver in drivers]


def capabilities_page() -> str:
    """The text of the page."""
    found = capabilities()
    fields = [field.name for field in dataclasses.fields(Capabilities) if field.name != "name"]
    lines = [f"| | {' | '.join(one.name for one in found)} | meaning |", f"|---{'|---' * len(found)}|---|"]
    for name in fields:
        values = " | ".join(_shown(name, getattr(one, name)) for one in found)
        lines.append(f"| `{name}` | {values} | {MEANINGS[name]} |")
    return PAGE.format(table="\n".join(lines) + "\n")


def _shown(name: str, value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "none" if name == "lease" else "no bound"
    if isinstance(value, str):
        return WORDS[value]
    if name.endswith("_bytes") and isinstance(value, int):
        return f"{value >> 20} MiB"
    return f"{value:,.3g} s" if name in SECONDS else f"{value:,}"
