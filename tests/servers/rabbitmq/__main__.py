"""A RabbitMQ server that outlives the command: `python -m tests.servers.rabbitmq up|down|address`.

`up` prints the line that lets tests use it: `export NOVA_TEST_RABBITMQ=…`. `make brokers-up` and `brokers-down` run this.
"""

from __future__ import annotations

import sys

from tests.servers.rabbitmq.finding import GIVEN, new_server
from tests.servers.rabbitmq.server import answers
from tests.servers.standing import Standing

STANDING = Standing(
    "rabbitmq", GIVEN, 19672, lambda directory, port: new_server(directory, port=port, owner=None), answers
)

if __name__ == "__main__":
    sys.exit(STANDING.main(__doc__))
