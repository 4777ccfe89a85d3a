"""`nova groups`: list the groups of a queue's topic prefix, remove one that nobody runs any more."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from nova.cli.options import AsJson, Yes, confirm, need_somebody
from nova.cli.outcome import Failed
from nova.cli.output import write_json, write_line, write_table
from nova.cli.target import ConfigFile, Url, queue_of
from nova.groups import GroupInfo
from nova.routing import check_name

__all__ = ["commands"]

commands = typer.Typer(help="Groups of workers that the broker keeps tasks for.")

_ACTIVE = {True: "yes", False: "no", None: "?"}


@commands.command("list")
def list_groups(
    config: ConfigFile = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """List the groups, their queues, how many messages are kept for each, and whether workers of it run."""
    with queue_of(config, url) as queue:
        found = queue.groups.list()
    if as_json:
        write_json([asdict(group) for group in found])
    elif found:
        write_table(("GROUP", "QUEUES", "WAITING", "ACTIVE"), map(_row, found), numbers=("WAITING",))
    else:
        write_line("no groups")


@commands.command("remove")
def remove_group(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The group.")],
    config: ConfigFile = None,
    url: Url = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Remove a group and drop every message kept for it, dead letters included. Stop its workers first."""
    check_name("groups remove", name)
    need_somebody("groups remove", yes)
    with queue_of(config, url) as queue:
        if not yes:
            _confirm(name, queue.groups.list())
        if not queue.groups.remove(name):
            raise Failed(_unknown(name, queue.groups.list()))
    if as_json:
        write_json({"removed": name})
    else:
        write_line(f"removed the group {name!r}")


def _confirm(name: str, groups: list[GroupInfo]) -> None:
    """Ask on the terminal."""
    known = {group.name: group for group in groups}
    if name not in known:
        raise Failed(_unknown(name, groups))
    waiting = known[name].waiting
    kept = "every message" if waiting is None else f"{waiting} messages"
    confirm(f"Remove the group {name!r} and drop {kept} kept for it?")


def _unknown(name: str, groups: list[GroupInfo]) -> str:
    return f"no group {name!r}; there is {', '.join(group.name for group in groups) or 'none'}"


def _row(group: GroupInfo) -> tuple[str, str, str, str]:
    waiting = "?" if group.waiting is None else str(group.waiting)
    return group.name, ", ".join(group.queues) or "-", waiting, _ACTIVE[group.active]
