"""What a check of the broker found, for people and programs. Any thread.

The driver reads and judges its own broker (`nova.brokers.base.Checking`); here its findings become a report, and a broker
that cannot be reached one finding more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nova.brokers.base import Checking, CheckRequest, Driver, Finding
from nova.errors import BrokerError

__all__ = ["CheckReport", "check_broker"]

_ORDER = ("harm", "hint", "unread", "ok")


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What was found.

    Attributes:
        findings: what hurts first, then hints, then what cannot be read, then what is well.
    """

    findings: tuple[Finding, ...]

    @property
    def will_hurt(self) -> bool:
        """Whether something should be mended before tasks depend on it."""
        return any(finding.severity == "harm" for finding in self.findings)


def check_broker(open_driver: Callable[[], Driver], request: CheckRequest) -> CheckReport:
    """Open the driver, and have it look.

    Args:
        open_driver: gives the open driver.

    Raises:
        ConfigError: the configuration is wrong; nothing was asked.
    """
    try:
        driver = open_driver()
        findings = [
            Finding("ok", "connection", f"{driver.capabilities.name}: connected"),
            *(driver.check(request) if isinstance(driver, Checking) else [_cannot(driver)]),
        ]
    except BrokerError as exc:
        findings = [
            Finding(
                "harm",
                "connection",
                str(exc),
                "nothing can be enqueued or handled",
                "mend what the message names, then check again",
            )
        ]
    return CheckReport(tuple(sorted(findings, key=lambda finding: _ORDER.index(finding.severity))))


def _cannot(driver: Driver) -> Finding:
    return Finding(
        "unread",
        "limits",
        f"the driver {driver.capabilities.name!r} is no nova.brokers.base.Checking",
        "its broker was reached, and nothing about it is known",
        "ask who wrote the driver which limits its broker has",
    )
