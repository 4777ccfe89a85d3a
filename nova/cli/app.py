"""All commands, and what their errors become. A new group of commands is one line here.

Typer was chosen over cyclopts and click (November 2026): options are typed signatures, which mypy and pyright check; it is
kept by the FastAPI project with several releases a month; it brings rich, which prints our tables, and nothing of click's
to clash with. Its public `TyperException` and `standalone_mode=False` leave the form of errors and the exit codes to us.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import typer

from nova.cli import dead, groups
from nova.cli.bench import bench
from nova.cli.check import check
from nova.cli.enqueue import enqueue
from nova.cli.outcome import DONE, FAILED, USAGE, Failed, complain
from nova.cli.queues import list_queues
from nova.cli.version import show_version
from nova.cli.worker import work
from nova.errors import ConfigError, NovaError

__all__ = ["run"]

app = typer.Typer(
    name="nova",
    help="Look after a Nova task queue.",
    epilog="Exit codes: 0 done, 1 the operation failed, 2 wrong usage or configuration, 75 restart the worker, 130 Ctrl-C.",
    pretty_exceptions_enable=False,
)
app.command("worker")(work)
app.command("enqueue")(enqueue)
app.command("queues")(list_queues)
app.add_typer(dead.commands, name="dead")
app.add_typer(groups.commands, name="groups")
app.command("bench")(bench)
app.command("check")(check)
app.command("version")(show_version)


@app.callback()
def nova() -> None:
    """Look after a Nova task queue. Say which one by --config, --url, NOVA_CONFIG or NOVA_URL."""


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code.

    Args:
        arguments: without the program's name; None = those of the process.
    """
    # Else Python prints the library's warnings beside the one line that says what went wrong. A worker sets up a log.
    logging.getLogger("nova").addHandler(logging.NullHandler())
    try:
        result = app(arguments, prog_name="nova", standalone_mode=False)
    except ConfigError as exc:
        return _failed(exc, USAGE)
    except (NovaError, Failed) as exc:
        return _failed(exc, FAILED)
    except typer.TyperException as exc:
        return _failed(f"{exc.format_message().rstrip('.')}; see nova --help", exc.exit_code)
    except typer.Abort:
        return _failed("stopped, nothing was done", FAILED)
    return result if isinstance(result, int) else DONE


def _failed(message: object, code: int) -> int:
    complain(message)
    return code
