"""What every test run shares: one server per broker, started by the first test that needs it."""

from __future__ import annotations

import signal

import pytest

from tests.servers import sharing


def pytest_configure(config: pytest.Config) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell's job in the background ignores Ctrl-C, and so would every program that a test starts and interrupts.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if not _is_worker(config):
        sharing.begin_run()


def pytest_unconfigure(config: pytest.Config) -> None:
    if not _is_worker(config):
        sharing.end_run()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Fetch servers before any test's time runs: the first time on a machine that may take minutes."""
    if session.config.option.collectonly:
        return
    if any(_wants("kafka", item.nodeid) for item in session.items):
        from tests.servers.kafka import finding  # here, so that unit tests load no client library

        finding.prepare()
    if any(_wants("rabbitmq", item.nodeid) for item in session.items):
        from tests.servers.rabbitmq import finding as rabbitmq

        rabbitmq.prepare()
    if any(_wants("rocketmq", item.nodeid) for item in session.items):
        from tests.servers.rocketmq import finding as rocketmq

        rocketmq.prepare()


def _wants(broker: str, nodeid: str) -> bool:
    return (
        nodeid.startswith(f"tests/live/test_{broker}")
        or f"::test_blocks_that_need_{broker}" in nodeid
        or f"::test_{broker}_has_the_" in nodeid
        or (nodeid.startswith(("tests/conformance/", "tests/examples/")) and broker in nodeid.partition("[")[2])
    )


def _is_worker(config: pytest.Config) -> bool:
    """Whether this process is one of pytest-xdist's; its controller is none."""
    return hasattr(config, "workerinput")
