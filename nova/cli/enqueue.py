"""`nova enqueue`: one task from the command line, or many from JSON lines."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import IO, Annotated, Any

import msgspec
import typer

from nova.cli.options import AsJson
from nova.cli.outcome import Failed
from nova.cli.output import write_json, write_line
from nova.cli.progress import bar
from nova.cli.target import ConfigFile, TaskQueue, Url, lonely_driver, queue_of
from nova.enqueue_options import resolve
from nova.errors import ConfigError
from nova.task import Enqueued, EnqueueReport, Priority, Task

__all__ = ["enqueue"]

CHUNK = 1000
"""Lines that are enqueued with one wait."""


class PriorityName(StrEnum):
    """The classes, as one types them."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"


class Line(msgspec.Struct, forbid_unknown_fields=True):
    """One line of `--batch`."""

    type: str
    payload: Any = None
    id: str | None = None
    key: str | None = None
    metadata: dict[str, str] | None = None


class BadLine(Failed):
    """A line that is no task."""


def enqueue(
    type: Annotated[str | None, typer.Argument(metavar="TYPE", help="The task's type.")] = None,
    payload: Annotated[str | None, typer.Argument(metavar="JSON", help="The payload; null if left out.")] = None,
    queue: Annotated[str | None, typer.Option("--queue", metavar="NAME", help="The queue to wait in.")] = None,
    priority: Annotated[PriorityName | None, typer.Option("--priority", help="The class; normal if left out.")] = None,
    delay: Annotated[
        float | None, typer.Option("--delay", metavar="SECONDS", help="Run no earlier than so long from now.")
    ] = None,
    at: Annotated[
        str | None, typer.Option("--at", metavar="TIME", help="Run no earlier: 2030-01-31T08:00:00+00:00.")
    ] = None,
    key: Annotated[str | None, typer.Option("--key", help="Partition key.")] = None,
    id: Annotated[str | None, typer.Option("--id", help="Your own id for the task.")] = None,
    metadata: Annotated[
        list[str] | None, typer.Option("--metadata", metavar="NAME=TEXT", help="Text beside the payload; repeat it.")
    ] = None,
    max_retries: Annotated[
        int | None, typer.Option("--max-retries", metavar="N", help="Runs after the first, instead of the policy's.")
    ] = None,
    batch: Annotated[
        str | None,
        typer.Option("--batch", metavar="FILE", help="Enqueue every line, a JSON object; - is standard input."),
    ] = None,
    config: ConfigFile = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Enqueue a task, or with --batch many. Returns when the broker has stored them."""
    given: dict[str, Any] = {
        "queue": queue,
        "priority": None if priority is None else Priority[priority.name],
        "process_in": delay,
        "process_at": None if at is None else _instant(at),
        "key": key,
        "metadata": _metadata(metadata) if metadata else None,
        "max_retries": max_retries,
        "task_id": id,
    }
    options = {name: value for name, value in given.items() if value is not None}
    resolve((), options)  # what is wrong with them is said before anything is opened
    if batch is not None:
        if type is not None or id is not None:
            raise ConfigError("enqueue: --batch takes types and ids from its lines; leave TYPE, JSON and --id out")
        with _lines_of(batch) as lines, queue_of(config, url) as q:
            _check_shared(q)
            _enqueue_many(q, lines, options, as_json=as_json)
        return
    if type is None:
        raise ConfigError("enqueue: expected TYPE and the payload as JSON, or --batch FILE")
    task = Task(type, _payload(payload))
    with queue_of(config, url) as q:
        _check_shared(q)
        _show(q.enqueue(task, **options), as_json=as_json)


def _check_shared(queue: TaskQueue) -> None:
    name = lonely_driver(queue)
    if name is not None:
        raise ConfigError(
            f"enqueue: {name!r} keeps tasks in one process, so they would be gone with this command; name a broker that a "
            "worker sees too, such as sqlite:///nova.db"
        )


def _show(enqueued: Enqueued, *, as_json: bool) -> None:
    name, due = enqueued.priority.name.lower(), enqueued.due_at
    due_at = None if due is None else due.isoformat()
    if as_json:
        write_json({"task_id": enqueued.task_id, "queue": enqueued.queue, "priority": name, "due_at": due_at})
    else:
        later = "" if due_at is None else f", due {due_at}"
        write_line(f"enqueued {enqueued.task_id} in {enqueued.queue}, {name}{later}")


class _Total:
    """What became of all lines so far."""

    def __init__(self) -> None:
        self.accepted = 0
        self.failed: dict[str, str] = {}
        self.unknown: dict[str, str] = {}

    def add(self, report: EnqueueReport) -> None:
        self.accepted += len(report.accepted)
        self.failed.update((id, str(error)) for id, error in report.failed.items())
        self.unknown.update((id, str(error)) for id, error in report.unknown.items())

    def show(self, *, as_json: bool) -> None:
        if as_json:
            write_json({"accepted": self.accepted, "failed": self.failed, "unknown": self.unknown})
        else:
            write_line(f"{self.accepted} accepted, {len(self.failed)} failed, {len(self.unknown)} unknown")

    def check(self) -> None:
        """Raise unless all were accepted."""
        if not self.failed and not self.unknown:
            return
        id, error = next(iter((self.failed or self.unknown).items()))
        raise Failed(
            f"enqueue: {len(self.failed)} tasks failed, {len(self.unknown)} may be stored (send them again with "
            f"their ids); first: {id}: {error}"
        )


def _enqueue_many(queue: TaskQueue, lines: Iterable[bytes], options: dict[str, Any], *, as_json: bool) -> None:
    total = _Total()
    tasks = _tasks_of(lines)
    try:
        with bar("enqueuing", None) as show:
            while chunk := list(itertools.islice(tasks, CHUNK)):
                total.add(queue.enqueue_batch([task for task, _ in chunk if task is not None], **options))
                show(total.accepted)
                bad = chunk[-1][1]
                if bad is not None:
                    raise BadLine(f"{bad}; nothing behind it was read")
    finally:  # whatever ended it, Ctrl-C too
        total.show(as_json=as_json)
    total.check()


def _tasks_of(lines: Iterable[bytes]) -> Generator[tuple[Task | None, str | None]]:
    """Each line's task; ends with the first line that is none, and what is wrong with it."""
    decoder = msgspec.json.Decoder(Line)
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            found = decoder.decode(line)
            yield Task(found.type, found.payload, id=found.id, key=found.key, metadata=found.metadata), None
        except (msgspec.MsgspecError, UnicodeDecodeError, ConfigError) as exc:
            yield None, f"enqueue: line {number} is no task: {exc}"
            return


@contextmanager
def _lines_of(name: str) -> Generator[IO[bytes]]:
    if name == "-":
        yield sys.stdin.buffer
        return
    try:
        file = Path(name).open("rb")  # noqa: SIM115 - closed below; an error of the block is not one of opening
    except OSError as exc:
        raise ConfigError(f"enqueue: cannot read {name}: {exc.strerror}") from exc
    with file:
        yield file


def _payload(text: str | None) -> Any:
    if text is None:
        return None
    try:
        return msgspec.json.decode(text)  # the standard library's takes NaN, which would be stored as null
    except (msgspec.MsgspecError, UnicodeError) as exc:
        raise ConfigError(f"""enqueue: the payload is no JSON ({exc}); write text as '"text"'""") from exc


def _instant(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError as exc:
        raise ConfigError(f"--at: expected a time such as 2030-01-31T08:00:00+00:00, got {text!r}") from exc
    if found.tzinfo is None:
        raise ConfigError(
            f"--at: expected a time such as 2030-01-31T08:00:00+00:00, got {text!r} without its offset; add it, or Z for UTC"
        )
    return found


def _metadata(pairs: list[str]) -> dict[str, str]:
    for pair in pairs:
        if "=" not in pair:
            raise ConfigError(f"--metadata: expected NAME=TEXT, got {pair!r}")
    return dict(pair.split("=", 1) for pair in pairs)
