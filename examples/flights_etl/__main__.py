"""Command line of the flights demo: `python -m examples.flights_etl [enqueue|load|verify] [options]`.

Without a role it runs the whole demo. `enqueue` and `load` print their progress as lines of JSON, `{"rows": 5000}`, and
may be run by hand, each in its own terminal; `verify` prints the table.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from examples.flights_etl.data import default_cache
from examples.flights_etl.errors import DemoError
from examples.flights_etl.settings import ADDRESSES, Settings
from nova.errors import NovaError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one role and return its exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    variable, _ = ADDRESSES.get(options.broker, ("", ""))
    if options.servers and not variable:
        parser.error(f"--servers says where the broker is; it goes with --broker {' or '.join(ADDRESSES)}")
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    settings = Settings(
        directory=options.dir.resolve(),
        cache=options.cache.resolve(),
        broker=options.broker,
        config=options.config and options.config.resolve(),
        servers=(options.servers or os.environ.get(variable) or None) if variable else None,
    )
    try:
        return _run(options.role, settings, options)
    except BrokenPipeError:
        return 1  # whoever read the reports is gone, so is the reason to go on
    except KeyboardInterrupt:
        return 130
    except (DemoError, NovaError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1


def _run(role: str, settings: Settings, options: argparse.Namespace) -> int:
    # Each role imports only its own side: the enqueuer needs no ClickHouse client, and the process that starts the
    # others must not import chDB at all.
    match role:
        case "enqueue":
            from examples.flights_etl import enqueue

            enqueue.run(settings, _print_rows)
        case "load":
            from examples.flights_etl import load

            load.run(settings, _print_rows)
        case "verify":
            from examples.flights_etl import verify

            return 0 if verify.run(settings, options.seconds) else 1
        case _:
            from examples.flights_etl import orchestrate

            return orchestrate.run(settings, keep=options.keep)
    return 0


def _print_rows(rows: int) -> None:
    print(json.dumps({"rows": rows}), flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m examples.flights_etl", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("role", nargs="?", choices=["run", "enqueue", "load", "verify"], default="run")
    broker = parser.add_mutually_exclusive_group()
    broker.add_argument("--broker", default="sqlite", help="the broker to use, with its defaults (sqlite)")
    broker.add_argument("--config", type=Path, help="a Nova configuration file that names the broker")
    parser.add_argument(
        "--servers",
        metavar="ADDRESS",
        help="where Kafka, RabbitMQ or RocketMQ is (NOVA_KAFKA, NOVA_RABBITMQ, NOVA_ROCKETMQ)",
    )
    parser.add_argument("--dir", type=Path, default=Path(".demo/flights_etl"), help="where this run keeps its files")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="where the downloaded flights are kept")
    parser.add_argument("--keep", action="store_true", help="go on with what an earlier run left in the directory")
    parser.add_argument("--seconds", type=float, help=argparse.SUPPRESS)  # verify: how long the run took
    return parser


if __name__ == "__main__":
    sys.exit(main())
