"""A Kafka server that outlives the command: `python -m tests.servers.kafka up|down|address`.

`up` prints the line that lets tests use it: `export NOVA_TEST_KAFKA=…`. `make brokers-up` and `make brokers-down` run this.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys

from tests.servers.cache import cache_directory, locked
from tests.servers.kafka.finding import new_server
from tests.servers.kafka.server import answers
from tests.servers.sharing import Unavailable

PORT = 19092
_DIRECTORY = cache_directory() / "kafka-up"
_STATE = cache_directory() / "kafka-up.json"


def _running() -> str | None:
    """The address of the server that `up` started and that answers."""
    if not _STATE.exists():
        return None
    address = str(json.loads(_STATE.read_text(encoding="utf-8"))["address"])
    return address if answers(address, timeout=5) else None


def up(port: int) -> str:
    """Start it unless it runs; its data begin empty."""
    running = _running()
    if running is not None:
        return running
    down()
    server = new_server(_DIRECTORY, port=port, owner=None)
    server.start()
    _STATE.write_text(json.dumps({"address": server.address, "end": server.end}), encoding="utf-8")
    return server.address


def down() -> None:
    """Kill it and drop its data; nothing happens when it does not run."""
    if _STATE.exists():
        state = json.loads(_STATE.read_text(encoding="utf-8"))
        subprocess.run(state["end"], capture_output=True, check=False)
        while answers(state["address"], timeout=1):
            pass
        _STATE.unlink()
    shutil.rmtree(_DIRECTORY, ignore_errors=True)


def main() -> int:
    """Run one command."""
    parser = argparse.ArgumentParser(prog="python -m tests.servers.kafka", description=__doc__)
    parser.add_argument("command", choices=["up", "down", "address"])
    parser.add_argument("--port", type=int, default=PORT)
    arguments = parser.parse_args()
    with locked(cache_directory() / "kafka-up.lock"):
        if arguments.command == "up":
            try:
                print(f"export NOVA_TEST_KAFKA={up(arguments.port)}")
            except Unavailable as exc:
                print(exc, file=sys.stderr)
                return 1
        elif arguments.command == "down":
            down()
        else:
            address = _running()
            print(
                address or "no server is up; start one with `make brokers-up`",
                file=sys.stdout if address else sys.stderr,
            )
            return 0 if address else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
