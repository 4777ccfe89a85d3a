"""The Django example: a task is enqueued if its transaction commits, and only then."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

PROJECT = """
from django.db import connection, transaction
from django.test import Client
from examples.django_service import Order, queue

with connection.schema_editor() as schema:
    schema.create_model(Order)
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
