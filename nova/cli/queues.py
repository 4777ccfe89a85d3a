"""`nova queues`: what waits, runs, is due later and is dead, per queue and class of the queue's group."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from nova.cli.options import AsJson, split_names
from nova.cli.output import write_json, write_line, write_table
from nova.cli.target import ConfigFile, TaskQueue, Url, queue_of
from nova.depth import Depth, QueueDepth
from nova.errors import NotSupported

__all__ = ["list_queues"]

COLUMNS = ("QUEUE", "PRIORITY", "WAITING", "DELAYED", "RUNNING", "DEAD")


def list_queues(
    queues: Annotated[
        list[str] | None,
        typer.Option("--queues", "--queue", metavar="NAMES", help="Only these; several by comma or by repeating it."),
    ] = None,
    config: ConfigFile = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Count the tasks of the queue's group: those of its configured queues, and of all that its workers ever read."""
    with queue_of(config, url) as queue:
        names = split_names(queues)
        depth = queue.depth(names) if names is not None else _depth_of_all(queue)
        group = queue.group_id
    if as_json:
        write_json(_document(group, depth))
        return
    write_table(COLUMNS, map(_row, depth.queues), numbers=COLUMNS[2:])
    write_line(f"group {group}: {depth.dead} dead, {depth.quarantined} in quarantine")


def _depth_of_all(queue: TaskQueue) -> Depth:
    """The configured queues first, then the others that the broker keeps for this group."""
    configured = queue.depth()
    names = list(dict.fromkeys(entry.queue for entry in configured.queues))
    try:
        groups = queue.groups.list()
    except NotSupported:
        return configured  # a driver without a register of groups knows no others
    others = [name for group in groups if group.name == queue.group_id for name in group.queues if name not in names]
    return queue.depth([*names, *others]) if others else configured


def _document(group: str, depth: Depth) -> dict[str, Any]:
    entries = [{**asdict(entry), "priority": entry.priority.name.lower()} for entry in depth.queues]
    return {"group": group, "queues": entries, "dead": depth.dead, "quarantined": depth.quarantined}


def _row(entry: QueueDepth) -> tuple[str, ...]:
    counts = (entry.waiting, entry.delayed, entry.running, entry.dead)
    return entry.queue, entry.priority.name.lower(), *("?" if count is None else str(count) for count in counts)
