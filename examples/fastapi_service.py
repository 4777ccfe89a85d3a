"""A web service that enqueues: FastAPI, `aenqueue`, and the queue opened and closed with the application.

$ python -m examples.fastapi_service [URL]             # calls the service in this process and runs a worker beside it
$ uvicorn examples.fastapi_service:app                 # serves it; NOVA_URL picks the broker, default sqlite:///nova.db

Tasks run in workers, usually other processes; `worker()` below is one.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from examples.broker import broker_url
from nova import BrokerError, Priority, ReceivedTask, Task, TaskQueue

log = logging.getLogger("shop")


@dataclass
class Order:
    """What a client posts, and the payload of the task."""

    number: int
    email: str
    urgent: bool = False


def create_app(url: str) -> FastAPI:
    """The service on one broker. Building the queue touches nothing; entering the lifespan opens it."""
    queue = TaskQueue.from_url(url)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        async with queue:  # a broker that cannot be reached stops the start, not the first request
            yield

    service = FastAPI(lifespan=lifespan)

    @service.exception_handler(BrokerError)
    def unavailable(_: Request, error: BrokerError) -> JSONResponse:
        log.warning("%s", error)
        return JSONResponse({"detail": "the broker does not answer, please try again"}, status_code=503)

    @service.post("/orders", status_code=202)
    async def post_order(order: Order) -> dict[str, str]:
        priority = Priority.HIGH if order.urgent else Priority.NORMAL
        # The event loop is free while the broker stores the task; 202 means that it has.
        stored = await queue.aenqueue(Task("order.confirm", order), priority=priority)
        return {"task_id": stored.task_id, "priority": stored.priority.name}

    @service.get("/queue")
    def get_queue() -> dict[str, int]:
        # `def`, so FastAPI runs it on a thread: `depth` asks the broker and blocks for it.
        depth = queue.depth()
        return {"waiting": depth.waiting, "running": depth.running, "dead": depth.dead}

    return service


async def confirm_order(task: ReceivedTask) -> str:
    """A handler may be `async def`: such handlers share one event loop."""
    order = task.bind(Order)
    await asyncio.sleep(0.01)  # stands for a call to a mail service
    return f"confirmed order {order.number} to {order.email}"


app = create_app(os.environ.get("NOVA_URL", "sqlite:///nova.db"))


def worker() -> None:
    """What a worker process runs until SIGTERM: `python -c 'import examples.fastapi_service as s; s.worker()'`."""
    TaskQueue.from_url(os.environ.get("NOVA_URL", "sqlite:///nova.db")).run(confirm_order)


async def exercise(url: str) -> None:
    """Start the application as a server would, post three orders and let a worker run them."""
    service = create_app(url)
    confirmed: list[str] = []
    done = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def handle(task: ReceivedTask) -> None:
        confirmed.append(await confirm_order(task))
        if len(confirmed) == 3:
            loop.call_soon_threadsafe(done.set)  # the handlers' event loop is not this one

    transport = httpx.ASGITransport(service)
    async with (
        service.router.lifespan_context(service),
        httpx.AsyncClient(transport=transport, base_url="http://x") as web,
    ):
        for number in (1, 2, 3):
            order: dict[str, Any] = {"number": number, "email": f"{number}@example.org", "urgent": number == 3}
            response = await web.post("/orders", json=order)
            print(f"order {number}: {response.status_code} {response.json()['priority']}")
        print("queue:", (await web.get("/queue")).json())

        async with TaskQueue.from_url(url) as queue:
            queue.start(handle)
            await asyncio.wait_for(done.wait(), timeout=10)
        print("queue:", (await web.get("/queue")).json())
    for line in sorted(confirmed):
        print(line)


def main() -> None:
    with broker_url() as url:
        # Service and worker are two queue objects here; in one process they share memory://NAME, not memory://.
        asyncio.run(exercise(url))


if __name__ == "__main__":
    main()
