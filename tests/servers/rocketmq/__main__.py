"""A RocketMQ server that outlives the command: `python -m tests.servers.rocketmq up|down|address`.

`up` prints the line that lets tests use it: `export NOVA_TEST_ROCKETMQ=…`. `make brokers-up` and `make brokers-down`
run this.
"""

from __future__ import annotations

import sys

from tests.servers.rocketmq.finding import GIVEN, new_server
from tests.servers.rocketmq.server import answers
from tests.servers.standing import Standing

STANDING = Standing(
    "rocketmq", GIVEN, 19081, lambda directory, port: new_server(directory, port=port, owner=None), answers
)

if __name__ == "__main__":
    sys.exit(STANDING.main(__doc__))
