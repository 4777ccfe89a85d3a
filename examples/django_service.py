"""A Django service whose tasks are enqueued only if the transaction commits: one file, SQLite, `transaction.on_commit`.

$ python -m examples.django_service [URL]              # calls the service in this process and runs a worker beside it
$ python -m examples.django_service runserver          # serves it; NOVA_URL picks the broker, default sqlite:///nova.db

It posts three orders, of which the database refuses one, and prints what the service answered, which orders are stored and
which were confirmed by the worker: the same ones. Between the commit and `enqueue` a process may still die, or the broker be
away, so an order may be stored without its task. Where that must not be, enqueue before the commit and let the handler
raise `Retry` until it finds the order, or look for unconfirmed orders from time to time.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
import threading
from functools import cache
from pathlib import Path

import django
from django.conf import settings
from django.core.management import execute_from_command_line
from django.db import IntegrityError, connection, models, transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.test import Client
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from examples.broker import broker_url
from nova import BrokerError, ReceivedTask, Task, TaskQueue

log = logging.getLogger("shop")

settings.configure(
    ALLOWED_HOSTS=["*"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ.get("SHOP_DB", "shop.db")}},
    DEBUG=False,
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    ROOT_URLCONF=__name__,
    SECRET_KEY="only for this example",
)
django.setup()


class Order(models.Model):
    number: models.IntegerField[int, int] = models.IntegerField(unique=True)
    email: models.EmailField[str, str] = models.EmailField()

    class Meta:  # noqa: D106  # Django's own word
        app_label = "shop"


@cache
def queue() -> TaskQueue:
    """Open the queue of this process at its first use: a server may fork its workers before that."""
    return TaskQueue.from_url(os.environ.get("NOVA_URL", "sqlite:///nova.db"))


@csrf_exempt
@require_POST
def post_order(request: HttpRequest) -> HttpResponse:
    given = json.loads(request.body)
    try:
        with transaction.atomic():
            # Registered before the order is even stored; it runs only if the whole block, and all around it, commits.
            transaction.on_commit(lambda: confirm(given["number"]))
            Order.objects.create(number=given["number"], email=given["email"])
    except IntegrityError:
        return JsonResponse({"error": "this number is taken"}, status=409)
    return JsonResponse({"number": given["number"]}, status=201)


def confirm(number: int) -> None:
    try:
        queue().enqueue(Task("order.confirm", {"number": number}))  # returns when the broker has stored it
    except BrokerError:  # the order is stored all the same, so this is no error of the request
        log.exception("order %d is stored, and its confirmation is not enqueued", number)


urlpatterns = [path("orders", post_order)]


def make_table() -> None:
    """A real project has migrations."""
    if Order._meta.db_table not in connection.introspection.table_names():
        with connection.schema_editor() as schema:
            schema.create_model(Order)


def exercise() -> None:
    make_table()
    web = Client()
    for number, email in [(1, "ada@example.org"), (2, "grace@example.org"), (1, "mallory@example.org")]:
        answer = web.post("/orders", {"number": number, "email": email}, content_type="application/json")
        print(f"order {number} of {email}: {answer.status_code}")

    confirmed: list[str] = []
    both = threading.Event()

    def handle(task: ReceivedTask) -> None:
        order = Order.objects.get(number=task.json()["number"])  # it is there: the task came after the commit
        confirmed.append(f"confirmed order {order.number} to {order.email}")
        connection.close()  # the handler's thread has a connection of its own
        if len(confirmed) == 2:
            both.set()

    print(f"stored: {Order.objects.count()}, enqueued: {queue().depth().waiting}")
    queue().start(handle, concurrency=2)
    both.wait(timeout=10)
    queue().stop()
    print("\n".join(sorted(confirmed)))


def main() -> None:
    if sys.argv[1:2] == ["runserver"]:
        make_table()
        execute_from_command_line([*sys.argv, "--noreload"])
        return
    with tempfile.TemporaryDirectory(prefix="nova-example-") as directory, broker_url() as url:
        connection.settings_dict["NAME"] = str(Path(directory) / "shop.db")
        os.environ["NOVA_URL"] = url
        exercise()
        connection.close()


if __name__ == "__main__":
    main()
