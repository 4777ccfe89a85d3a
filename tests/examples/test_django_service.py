"""The Django example: a task is enqueued if its transaction commits, and only then."""

from __future__ import annotations

import subprocess
import sys
from http.client import HTTPConnection
from pathlib import Path

from tests.eventually import eventually
from tests.servers.ports import free_ports

ROOT = Path(__file__).parents[2]

PROJECT = """
from django.db import transaction
from django.test import Client
from examples.django_service import Order, make_table, queue

make_table()
web = Client()

def post(number):
    return web.post("/orders", {"number": number, "email": "a@b.c"}, content_type="application/json").status_code

def show(what):
    print(what, Order.objects.count(), queue().depth().waiting)

try:
    with transaction.atomic():
        assert post(1) == 201
        show("within")
        raise RuntimeError("something else of the request fails")
except RuntimeError:
    show("rolled back")
with transaction.atomic():
    assert post(1) == 201
    show("within")
show("committed")
assert post(1) == 409
show("refused")
queue().stop()
"""
"""In a process of its own: Django is set up once in a process."""


def test_a_transaction_that_is_rolled_back_enqueues_nothing(tmp_path: Path) -> None:
    environment = {"SHOP_DB": str(tmp_path / "shop.db"), "NOVA_URL": f"sqlite:///{tmp_path}/nova.db"}
    finished = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROJECT],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.splitlines() == [
        "within 1 0",
        "rolled back 0 0",
        "within 1 0",
        "committed 1 1",
        "refused 1 1",
    ]


def test_an_order_whose_task_the_broker_does_not_take_is_stored_and_told(tmp_path: Path) -> None:
    """Nothing takes the order back: an error would have the client try again, and be told that the number is taken."""
    away = """
from django.test import Client
from examples.django_service import Order, make_table

make_table()
answer = Client().post("/orders", {"number": 7, "email": "a@b.c"}, content_type="application/json")
print(answer.status_code, Order.objects.count())
"""
    environment = {"SHOP_DB": str(tmp_path / "shop.db"), "NOVA_URL": f"sqlite:///{tmp_path}/missing/nova.db"}
    finished = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", away],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert finished.stdout == "201 1\n", finished.stderr
    assert "order 7 is stored, and its confirmation is not enqueued" in finished.stderr


def test_it_is_served_as_its_first_lines_say(tmp_path: Path) -> None:
    environment = {"SHOP_DB": str(tmp_path / "shop.db"), "NOVA_URL": f"sqlite:///{tmp_path}/nova.db"}
    assert post_to_a_server(environment) == 201
    assert post_to_a_server(environment) == 409, "the order is still there, and so is its table"


def post_to_a_server(environment: dict[str, str]) -> int:
    """Serve until one order is answered; the status."""
    (port,) = free_ports(1)
    command = [sys.executable, "-W", "ignore", "-m", "examples.django_service", "runserver", str(port)]
    answers: list[int] = []

    def post() -> bool:
        connection = HTTPConnection("127.0.0.1", port, timeout=20)
        try:
            connection.request(
                "POST", "/orders", '{"number": 1, "email": "a@b.c"}', {"Content-Type": "application/json"}
            )
            answers.append(connection.getresponse().status)
        except ConnectionRefusedError:
            return False
        finally:
            connection.close()
        return True

    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as it:
        try:
            eventually(post, timeout=40)
        finally:
            it.terminate()
    return answers[0]
