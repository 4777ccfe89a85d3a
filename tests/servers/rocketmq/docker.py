"""The same servers in one container, for machines without Java."""

from __future__ import annotations

import json
import shlex

from tests.servers.containers import Container
from tests.servers.guard import THIS_PROCESS
from tests.servers.ports import free_ports
from tests.servers.rocketmq.install import VERSION
from tests.servers.rocketmq.server import until_answers, url
from tests.servers.rocketmq.settings import HOST, TUNED, Ports, broker_lines, proxy_entries

IMAGE = f"apache/rocketmq:{VERSION}"
_DATA = "/home/rocketmq/data"


class DockerRocket(Container):
    """`RocketServer` in a container of the official image; its ports are the same inside, because brokers tell theirs."""

    def __init__(self, *, port: int | None = None, owner: int | None = THIS_PROCESS) -> None:
        names, broker, grpc, remoting = free_ports(4)
        ports = Ports(names, broker, port or grpc, remoting)
        address = url(ports.grpc, ports.names)
        published = (ports.names, ports.broker, ports.grpc)
        super().__init__(
            "RocketMQ",
            IMAGE,
            [word for number in published for word in ("-p", f"{HOST}:{number}:{number}")],
            command=["sh", "-c", _script(ports)],
            address=address,
            answers=lambda: until_answers(address, lambda: True),
            owner=owner,
        )


def _script(ports: Ports) -> str:
    """Writes the settings, then runs name server and proxy, which listen to all inside, so that Docker reaches them."""
    broker = {**broker_lines(_DATA, ports), **TUNED.broker}
    del broker["bindAddress"]
    files = {
        "namesrv.conf": f"listenPort={ports.names}",
        "broker.conf": "\n".join(f"{key}={value}" for key, value in broker.items()),
        "rmq-proxy.json": json.dumps({**proxy_entries(ports), **TUNED.proxy}),
    }
    write = " && ".join(f"printf %s {shlex.quote(text)} > {_DATA}/{name}" for name, text in files.items())
    return (
        f"mkdir -p {_DATA} && {write} && (sh mqnamesrv -c {_DATA}/namesrv.conf &) && "
        f"exec sh mqproxy -pm local -n {HOST}:{ports.names} -bc {_DATA}/broker.conf -pc {_DATA}/rmq-proxy.json"
    )
