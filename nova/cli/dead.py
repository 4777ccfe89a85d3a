"""`nova dead`: look at what the queue's group has buried, send it back, or delete it."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Annotated, Any, TypeAlias

import typer

from nova.cli.options import AsJson, Yes, confirm, need_somebody
from nova.cli.outcome import Failed
from nova.cli.output import write_json, write_line, write_table
from nova.cli.progress import bar
from nova.cli.target import ConfigFile, TaskQueue, Url, queue_of
from nova.codecs import find_codec
from nova.dead import DeadTask
from nova.envelope import codec_of
from nova.errors import BrokerError, ConfigError, NovaError

__all__ = ["commands"]

CHUNK = 1000
"""Dead letters that are moved before the bar moves."""

Filters: TypeAlias = dict[str, str]

Type: TypeAlias = Annotated[str | None, typer.Option("--type", metavar="TYPE", help="Only tasks of this type.")]
Queue: TypeAlias = Annotated[str | None, typer.Option("--queue", metavar="NAME", help="Only from this queue.")]
Reason: TypeAlias = Annotated[
    str | None, typer.Option("--reason", metavar="TEXT", help="Only with this reason, such as 'retries exhausted'.")
]
Ids: TypeAlias = Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="The tasks, by id.")]
All: TypeAlias = Annotated[bool, typer.Option("--all", help="Every dead task of the group.")]
Limit: TypeAlias = Annotated[int | None, typer.Option("--limit", metavar="N", min=1, help="At most so many.")]

commands = typer.Typer(help="Dead tasks: list, show, send back, delete.")


@commands.command("list")
def list_dead(
    type: Type = None,
    queue: Queue = None,
    reason: Reason = None,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, help="At most so many.")] = 50,
    config: ConfigFile = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """List dead tasks, oldest first. Looking does not wear them out."""
    with queue_of(config, url) as q:
        found = q.dead.list(limit=limit, **_filters(type, queue, reason))
    if as_json:
        write_json([_summary(task) for task in found])
    elif found:
        write_table(("ID", "TYPE", "QUEUE", "REASON", "ERROR", "ATTEMPT", "DIED"), map(_row, found), ("ATTEMPT",))
    else:
        write_line("no dead tasks")


@commands.command("show")
def show_dead(
    id: Annotated[str, typer.Argument(metavar="ID", help="The task's id.")],
    config: ConfigFile = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Show one dead task: why it died, its payload, its headers."""
    with queue_of(config, url) as q:
        found = q.dead.list(id=id, limit=1)
    if not found:
        raise Failed(_unknown([id]))
    document = _whole(found[0])
    if as_json:
        write_json(document)
    else:
        _write_whole(document)


@commands.command("requeue")
def requeue(
    ids: Ids = None,
    every: All = False,
    type: Type = None,
    queue: Queue = None,
    reason: Reason = None,
    limit: Limit = None,
    yes: Yes = False,
    config: ConfigFile = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Send dead tasks back to their queues: by id, by filter, or all. They start again with attempt 1."""
    filters = _filters(type, queue, reason)
    _check_choice("dead requeue", ids, filters, every=every, limit=limit)
    if not ids:
        need_somebody("dead requeue", yes)
    with queue_of(config, url) as q:
        if ids:
            done = _each(ids, lambda id: q.dead.requeue(id=id))
        else:
            done = _many(q, "requeue", filters, limit, yes=yes)
    _say(done, "requeued", as_json)


@commands.command("purge")
def purge(
    ids: Ids = None,
    every: All = False,
    type: Type = None,
    queue: Queue = None,
    reason: Reason = None,
    limit: Limit = None,
    yes: Yes = False,
    config: ConfigFile = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Delete dead tasks for good: by id, by filter, or all."""
    filters = _filters(type, queue, reason)
    _check_choice("dead purge", ids, filters, every=every, limit=limit)
    need_somebody("dead purge", yes)
    with queue_of(config, url) as q:
        if ids:
            if not yes:
                confirm(_QUESTIONS["purge"].format(which=_counted(len(ids))))
            done = _each(ids, lambda id: q.dead.purge(id=id))
        else:
            done = _many(q, "purge", filters, limit, yes=yes)
    _say(done, "purged", as_json)


def _say(done: int, what: str, as_json: bool) -> None:
    if as_json:
        write_json({what: done})
    else:
        write_line(f"{done} {what}")


def _check_choice(command: str, ids: list[str] | None, filters: Filters, *, every: bool, limit: int | None) -> None:
    """Exactly one way to say which: nobody means all by leaving everything out."""
    if ids and (filters or every or limit is not None):
        raise ConfigError(f"{command}: ids need no --all, --limit or filter; give one or the other")
    if every and filters:
        raise ConfigError(f"{command}: --all and a filter are both given; keep one")
    if not (ids or filters or every):
        raise ConfigError(f"{command}: say which: ids, a filter (--type, --queue, --reason), or --all")


def _each(ids: list[str], act: Callable[[str], int]) -> int:
    """Do it to each id; those that are not there are named at the end, and are no reason to leave the others."""
    counts = {id: act(id) for id in dict.fromkeys(ids)}
    missing = [id for id, count in counts.items() if not count]
    done = sum(counts.values())
    if missing:
        raise Failed(f"{_unknown(missing)} (done: {done})")
    return done


_QUESTIONS = {
    "requeue": "Send {which} back to their queues?",
    "purge": "Delete {which} for good?",
}


def _many(q: TaskQueue, verb: str, filters: Filters, limit: int | None, *, yes: bool) -> int:
    """In chunks, under a bar, until none is left, or as many are done as were dead at first: some may die again."""
    dead = q.depth().dead
    most = dead if limit is None else min(limit, dead)
    if not yes:
        described = " and ".join(f"{name} {value!r}" for name, value in filters.items())
        which = f"up to {_counted(most)} ({described})" if filters else _counted(most)
        confirm(_QUESTIONS[verb].format(which=which))
    act = q.dead.requeue if verb == "requeue" else q.dead.purge
    done = 0
    with bar(f"{verb}:", most if not filters else None) as show:
        while True:
            wanted = CHUNK if limit is None else min(CHUNK, limit - done)
            try:
                moved = act(limit=wanted, **filters)
            except BrokerError as exc:
                raise Failed(f"{exc} (done before: {done})") from exc
            done += moved
            show(done)
            if moved < wanted or done >= most:
                return done


def _counted(count: int) -> str:
    return f"{count} dead {'task' if count == 1 else 'tasks'}"


def _filters(type: str | None, queue: str | None, reason: str | None) -> Filters:
    given = {"type": type, "queue": queue, "reason": reason}
    return {name: value for name, value in given.items() if value is not None}


def _unknown(ids: list[str]) -> str:
    return f"no dead task {', '.join(map(repr, ids))}; see nova dead list"


def _row(task: DeadTask) -> tuple[str, ...]:
    died = "?" if task.died_at is None else task.died_at.isoformat(timespec="seconds")
    return task.id or "-", task.type or "-", task.queue, task.reason, task.error_type or "-", str(task.attempt), died


def _summary(task: DeadTask) -> dict[str, Any]:
    return {
        "id": task.id,
        "type": task.type,
        "queue": task.queue,
        "reason": task.reason,
        "error_type": task.error_type,
        "attempt": task.attempt,
        "died_at": None if task.died_at is None else task.died_at.isoformat(),
        "worker": task.worker,
    }


def _whole(task: DeadTask) -> dict[str, Any]:
    return {
        **_summary(task),
        "error": task.error,
        "payload": _payload(task),
        "body_base64": base64.b64encode(task.body).decode(),
        "headers": task.headers,
    }


def _payload(task: DeadTask) -> str | None:
    """The payload as text; None if it is none, or if the body is in no format of Nova's."""
    try:
        return find_codec(codec_of(task.headers)).decode(task.body, task.headers).payload.decode()
    except (NovaError, UnicodeDecodeError):
        return None


def _write_whole(document: dict[str, Any]) -> None:
    """Lines of name and value; what has many lines comes last."""
    for name, value in document.items():
        if name not in ("error", "body_base64", "headers"):
            write_line(f"{name + ':':<12}{'-' if value in (None, '') else value}")
    write_line("headers:")
    for name, value in document["headers"].items():
        if value != document["error"]:
            write_line(f"  {name}: {value}")
    if document["error"]:
        write_line(f"error:\n{document['error'].rstrip()}")
