"""Leases: what this process holds is renewed at half time, each time to a later end than before.

A renewal to the end that a message has already makes the server lose the message (apache/rocketmq issue 10276). Ends
here are at least `APART` later than the one before, whatever the clock does. A renewal gives a new receipt; an ack with
the old one would have no effect, so an ack that comes meanwhile waits for the answer. Renewals do not raise the
server's count of hand-outs (measured on 5.4.0: four renewals, then the second hand-out). Any thread.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import grpc

from nova.brokers.base import Delivery
from nova.brokers.rocketmq.client import renewed_receipt
from nova.brokers.rocketmq.consumer import Consumer
from nova.brokers.rocketmq.failures import INVALID_RECEIPT_HANDLE, Failure, failure_of_call, failure_of_status
from nova.brokers.rocketmq.messages import Place
from nova.brokers.rocketmq.stubs import service

__all__ = ["Leases", "renewed_for_ms"]

APART = 0.1
MOST_OPEN = 200

_log = logging.getLogger(__name__)


def renewed_for_ms(until: float, now: float, lease: float) -> int:
    """For how long (ms) to renew what ends at `until`, so that it ends at another instant. Pure."""
    return round(max(lease, until - now + APART) * 1000)


class Leases:
    """What one subscription holds.

    Args:
        settle: acks what was settled while it was renewed.
    """

    def __init__(self, consumer: Consumer, lease: float, settle: Callable[[Place], None]) -> None:
        self._consumer = consumer
        self._lease = lease
        self._settle = settle
        self._held: dict[Delivery, None] = {}
        self._open = 0
        self._failing = False
        self._using = threading.Lock()

    def hold(self, deliveries: Iterable[Delivery]) -> None:
        """Renew these from now on."""
        with self._using:
            self._held.update(dict.fromkeys(deliveries))

    def count(self) -> int:
        """How many are held."""
        return len(self._held)

    def everything(self) -> list[Delivery]:
        """What is held now."""
        with self._using:
            return list(self._held)

    def take(self, deliveries: Iterable[Delivery]) -> list[Delivery]:
        """Those of these that are still held, which are held no more."""
        with self._using:
            mine = [delivery for delivery in deliveries if delivery in self._held]
            for delivery in mine:
                del self._held[delivery]
            return mine

    def settled(self, deliveries: Iterable[Delivery]) -> list[Place]:
        """What may be acked now of those just taken; what is being renewed follows by itself."""
        ready: list[Place] = []
        with self._using:
            for delivery in deliveries:
                place: Place = delivery.handle
                place.settled = True
                if not place.renewing:
                    ready.append(place)
        return ready

    def look(self) -> None:
        """Renew what is due, and mark what is over."""
        now = time.monotonic()
        due: list[tuple[Delivery, Any]] = []
        with self._using:
            for delivery in list(self._held):
                place: Place = delivery.handle
                if now >= place.until:
                    delivery.lost = True
                    del self._held[delivery]
                elif not place.renewing and place.until - now <= self._lease / 2 and self._open < MOST_OPEN:
                    place.renewing = True
                    self._open += 1
                    due.append((delivery, self._request(place, now)))
        for delivery, request in due:
            call = self._consumer.connection.start(
                "ChangeInvisibleDuration",
                request,
                min(self._consumer.request_timeout, self._lease / 4),
                self._consumer.client_id,
            )
            until = now + request.invisible_duration.ToMilliseconds() / 1000
            call.add_done_callback(lambda done, delivery=delivery, until=until: self._renewed(delivery, until, done))

    def _request(self, place: Place, now: float) -> Any:
        request = service.ChangeInvisibleDurationRequest(receipt_handle=place.receipt, message_id=place.message_id)
        request.group.name = self._consumer.group
        request.topic.name = place.topic
        request.invisible_duration.FromMilliseconds(renewed_for_ms(place.until, now, self._lease))
        return request

    # --- gRPC's thread

    def _renewed(self, delivery: Delivery, until: float, call: Any) -> None:
        place: Place = delivery.handle
        failure: Failure | None
        receipt = ""
        try:
            answer = call.result()
        except grpc.FutureCancelledError:
            failure = Failure(0, "closed", mends=False, may_be_done=True, away=True)
        except grpc.RpcError as exc:
            failure = failure_of_call(exc)
        else:
            failure, receipt = failure_of_status(answer.status), answer.receipt_handle
        with self._using:
            self._open -= 1
            place.renewing = False
            if failure is None:
                place.receipt = renewed_receipt(receipt) if receipt else place.receipt
                place.until = until
            elif failure.code == INVALID_RECEIPT_HANDLE and delivery in self._held:
                delivery.lost = True
                del self._held[delivery]
            failed_before, self._failing = self._failing, failure is not None and failure.code != INVALID_RECEIPT_HANDLE
            settled = place.settled
        if failure is not None and self._failing and not failed_before:
            _log.warning(
                "%s: leases cannot be renewed, trying again; tasks may be done twice: %s",
                *(self._consumer.connection.where, failure.text),
            )
        if settled:
            self._settle(place)
