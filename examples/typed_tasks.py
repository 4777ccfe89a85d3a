"""Payloads with types: decorated functions, dataclasses, msgspec structs, pydantic models, and what errors look like.

$ python -m examples.typed_tasks
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from nova import DecodeError, EncodeError, Priority, ReceivedTask, Task, TaskQueue, with_memory

queue = TaskQueue(with_memory())


@dataclass
class Address:
    street: str
    city: str


class Invoice(msgspec.Struct):
    number: int
    total: float
    issued: datetime


# A function becomes a task type. Its parameters are the payload: a JSON object by parameter name.
@queue.task("parcel.send", max_retries=5)
def send_parcel(order_id: int, to: Address, express: bool = False) -> None:
    print(f"parcel {order_id} to {to.city}, express: {express}")


def main() -> None:
    with queue:
        show_decorated()
        show_bind()
        show_pydantic()


def show_decorated() -> None:
    address = Address("1 Main Street", "Springfield")
    send_parcel(1, address)  # calling it runs it here and now, without the queue
    send_parcel.enqueue(2, address)
    send_parcel.options(priority=Priority.HIGH).enqueue(3, address, express=True)
    # A worker would run them with `queue.start()`; `drain` runs them in this thread.
    print(f"ran {queue.drain()} decorated tasks")

    # A wrong argument is refused where the mistake is made: nothing is sent. (Any: the type checker would refuse it too.)
    wrong: Any = "four"
    try:
        send_parcel.enqueue(wrong, address)
    except EncodeError as error:
        print(f"refused: {error}")


def show_bind() -> None:
    """`Task` and one handler for all: `bind` turns the payload into a checked object."""
    issued = datetime(2026, 1, 31, tzinfo=UTC)
    queue.enqueue(
        Task("invoice", Invoice(7, 99.5, issued))
    )  # structs, dataclasses and plain JSON values are one on the wire
    queue.enqueue(Task("address", {"street": "2 Side Street", "city": "Shelbyville"}))
    queue.enqueue(Task("invoice", {"number": "eight", "total": 1.0, "issued": issued}, id="bad-invoice"))

    def handle(task: ReceivedTask) -> None:
        if task.type == "address":
            print(f"address in {task.bind(Address).city}")
            return
        try:
            invoice = task.bind(Invoice)
        except DecodeError as error:
            print(f"does not fit: {error}")
            return  # a real handler would let the error through: retries, then the dead letters
        print(f"invoice {invoice.number} of {invoice.issued:%Y-%m-%d}: {invoice.total}")

    queue.drain(handle)


def show_pydantic() -> None:
    if importlib.util.find_spec("pydantic") is None:
        print("pydantic is not installed, skipped")
        return
    from pydantic import BaseModel, Field

    class Signup(BaseModel):
        email: str
        age: int = Field(ge=18)

    queue.enqueue(Task("signup", Signup(email="ada@example.org", age=36)))
    queue.enqueue(Task("signup", {"email": "bart@example.org", "age": 10}, id="too-young"))

    def handle(task: ReceivedTask) -> None:
        try:
            signup = task.bind(Signup)
        except DecodeError as error:
            print(f"does not fit: {str(error).split(';')[0]}")
            return
        print(f"signup of {signup.email}")

    queue.drain(handle)


if __name__ == "__main__":
    main()
