"""`q.check()` and `nova check`: what becomes of findings, and what each driver's numbers mean."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from nova import (
    ConfigError,
    Finding,
    QueueFull,
    Task,
    TaskQueue,
    with_driver,
    with_memory,
    with_queues,
    with_retry,
    with_sqlite,
)
from nova.brokers.base import CheckRequest
from nova.brokers.memory.config import MemoryConfig
from nova.brokers.memory.driver import MemoryDriver
from nova.brokers.sqlite.limits import FileFacts, judge, kind_of_mount
from tests.command_line import assert_complains, run
from tests.eventually import eventually
from tests.unit.test_groups import WithoutRegister


class Judging(MemoryDriver):
    """Memory, with findings of the test's own."""

    def __init__(self, *findings: Finding) -> None:
        super().__init__(MemoryConfig())
        self._findings = list(findings)
        self.asked: list[CheckRequest] = []

    def check(self, request: CheckRequest) -> list[Finding]:
        self.asked.append(request)
        return self._findings


def severities(findings: Sequence[Finding]) -> dict[str, str]:
    """By name."""
    return {finding.name: finding.severity for finding in findings}


def one(findings: Sequence[Finding], name: str) -> Finding:
    (found,) = [finding for finding in findings if finding.name == name]
    return found


# --- the facade


@pytest.mark.parametrize(("worst", "will_hurt"), [("ok", False), ("unread", False), ("hint", False), ("harm", True)])
def test_only_harm_hurts(worst: str, will_hurt: bool) -> None:
    report = TaskQueue(with_driver(Judging(Finding(worst, "x", "1")))).check()  # type: ignore[arg-type]
    assert report.will_hurt is will_hurt
    assert len(report.findings) == 2, "that the broker was reached is a finding, too"


def test_what_hurts_comes_first() -> None:
    given = [Finding(severity, severity, "1") for severity in ("ok", "hint", "unread", "harm")]
    report = TaskQueue(with_driver(Judging(*given))).check()
    assert [finding.name for finding in report.findings] == ["harm", "hint", "unread", "connection", "ok"]


def test_the_driver_is_told_the_topics_the_group_and_the_workers() -> None:
    driver = Judging()
    TaskQueue(with_driver(driver), with_queues("mail")).check(workers=7)
    (request,) = driver.asked
    assert request.topics == ("TASK_QUEUE-mail_PRIORITY_HIGH", "TASK_QUEUE-mail", "TASK_QUEUE-mail_PRIORITY_LOW")
    assert request.own_topics == ("TASK_QUEUE_DEAD", "TASK_QUEUE-mail_QUARANTINE")
    assert (request.group, request.workers) == ("TASK_QUEUE_GROUP", 7)


def test_a_driver_that_cannot_check_says_so_and_does_not_hurt() -> None:
    report = TaskQueue(with_driver(WithoutRegister())).check()
    assert one(report.findings, "limits").severity == "unread"
    assert not report.will_hurt


def test_a_broker_that_cannot_be_reached_is_a_finding(tmp_path: Path) -> None:
    report = TaskQueue(with_sqlite(tmp_path / "missing" / "nova.db")).check()
    (found,) = report.findings
    assert (found.severity, found.name) == ("harm", "connection")
    assert str(tmp_path) in found.found
    assert report.will_hurt


@pytest.mark.parametrize("workers", [0, True, 1.5, "3"])
def test_a_wrong_number_of_workers_is_refused(workers: object) -> None:
    with pytest.raises(ConfigError, match=r"check\(workers\)"):
        TaskQueue(with_memory()).check(workers=workers)  # type: ignore[arg-type]


# --- the command


def test_hints_alone_exit_with_0(tmp_path: Path) -> None:
    done = run(tmp_path, "check", "--url", "memory://")
    assert (done.returncode, done.stderr) == (0, "")
    assert "hint   durability: in this process's memory" in done.stdout
    assert done.stdout.splitlines()[-1] == "0 will hurt, 1 hints, 0 not readable, 1 ok"


def test_what_hurts_exits_with_1_with_the_number_its_meaning_and_the_fix(tmp_path: Path) -> None:
    (tmp_path / "queue.toml").write_text('[memory]\nname = "x"\n', encoding="utf-8")
    done = run(tmp_path, "check", "queue.toml", "--workers", "2")
    assert done.returncode == 1
    hurts, meaning, fix = done.stdout.splitlines()[:3]
    assert hurts == "HURTS  workers: 2 worker processes"
    assert "none sees what another enqueues" in meaning
    assert fix.startswith("       -> one process")


def test_json_has_every_part_of_every_finding(tmp_path: Path) -> None:
    done = run(tmp_path, "check", "--json", "--url", "sqlite:///no/where/n.db")
    assert (done.returncode, done.stderr) == (1, "")
    document = json.loads(done.stdout)
    assert document["will_hurt"] is True
    assert [list(finding) for finding in document["findings"]] == [["severity", "name", "found", "meaning", "fix"]]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["missing.toml"], "missing.toml"),
        (["--url", "sqlite:///n.db?leas=3"], "lease"),
        (["q.toml", "--config", "q.toml"], "given twice"),
        (["q.toml", "--url", "memory://"], "both given"),
    ],
)
def test_a_wrong_configuration_exits_with_2_and_opens_nothing(tmp_path: Path, arguments: list[str], words: str) -> None:
    assert_complains(run(tmp_path, "check", *arguments), 2, words)
    assert not (tmp_path / "n.db").exists()


# --- a file


def facts(**changed: object) -> FileFacts:
    usual: dict[str, object] = {
        "path": "/data/nova.db",
        "mount": "ext4",
        "size": 1 << 20,
        "unused": 0,
        "free": 10 << 30,
        "journal_mode": "wal",
        "synchronous": 2,
        "refusal": None,
    }
    return FileFacts(**{**usual, **changed})  # type: ignore[arg-type]


def test_a_file_on_a_local_disk_with_room_is_well() -> None:
    assert set(severities(judge(facts(), None)).values()) == {"ok"}


@pytest.mark.parametrize(
    ("changed", "max_bytes", "name", "severity", "words"),
    [
        ({"mount": "nfs4"}, None, "file system", "harm", "nfs4"),
        ({"mount": "cifs"}, None, "file system", "harm", "cifs"),
        ({"mount": "tmpfs"}, None, "file system", "harm", "in memory"),
        ({"mount": "overlay"}, None, "file system", "hint", "container"),
        ({"mount": None}, None, "file system", "unread", "no table of mounts"),
        ({"free": 8 << 20}, None, "disk", "hint", "8.0 MiB free"),
        ({"free": (8 << 20) - 1}, None, "disk", "harm", "8.0 MiB free"),
        ({"free": 0, "size": 1 << 30}, 2 << 30, "disk", "harm", "0.0 MiB free"),
        ({"free": 1 << 30}, 2 << 30, "disk", "harm", "grow by 2.0 GiB"),
        ({"free": 1 << 30, "size": 1 << 30}, 2 << 30, "disk", "ok", "grow by 1.0 GiB"),
        ({"size": 3 << 30}, 2 << 30, "disk", "harm", "room for 0.0 MiB more"),
        ({"size": 3 << 30, "unused": 1 << 20}, 2 << 30, "disk", "ok", "grow by 0.0 MiB"),
        ({"size": (2 << 30) - 65_535}, 2 << 30, "disk", "harm", "room for 0.1 MiB more"),
        ({"size": (2 << 30) - 65_536}, 2 << 30, "disk", "ok", "grow by 0.1 MiB"),
        ({"journal_mode": "delete"}, None, "settings", "harm", "journal_mode=delete"),
        ({"synchronous": 1}, None, "settings", "harm", "synchronous=1"),
        ({"refusal": "readonly"}, None, "path", "harm", "readonly"),
    ],
)
def test_each_trouble_of_a_file_has_its_number(
    changed: dict[str, object], max_bytes: int | None, name: str, severity: str, words: str
) -> None:
    found = one(judge(facts(**changed), max_bytes), name)
    assert (found.severity, words in found.found) == (severity, True), found
    assert bool(found.fix) is (severity != "ok")


MOUNTS = """\
24 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
31 24 0:26 / /mnt rw - nfs4 server:/x rw
32 31 0:27 / /mnt/own\\040disk rw - xfs /dev/vdb rw
33 24 0:28 / /srv rw - ext4 /dev/vdc rw
34 33 0:29 / /srv rw - fuse.sshfs host: rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var/nova.db", "ext4"),
        ("/mnt/nova.db", "nfs4"),
        ("/mnt/own disk/nova.db", "xfs"),
        ("/mntx/nova.db", "ext4"),
        ("/srv/nova.db", "fuse.sshfs"),
    ],
)
def test_a_path_lies_on_the_nearest_mount_and_of_several_there_on_the_last(path: str, kind: str) -> None:
    assert kind_of_mount(path, MOUNTS) == kind


def test_a_table_without_mounts_tells_nothing() -> None:
    assert kind_of_mount("/var/nova.db", "") is None


@pytest.fixture
def file(tmp_path: Path) -> Callable[..., list[Finding]]:
    def check(**options: object) -> list[Finding]:
        with TaskQueue(with_sqlite(tmp_path / "nova.db", **options)) as q:  # type: ignore[arg-type]
            q.enqueue(Task("t"))
            return list(q.check().findings)

    return check


def test_the_numbers_of_a_real_file(file: Callable[..., list[Finding]], tmp_path: Path) -> None:
    found = file(max_bytes=1 << 20)
    assert one(found, "path").severity == "ok"
    assert one(found, "settings").found == "journal_mode=wal, synchronous=2"
    assert "with_sqlite(max_bytes=1048576)" in one(found, "disk").found
    assert f"{(tmp_path / 'nova.db')}" in one(found, "path").found


def test_a_file_that_may_grow_beyond_its_real_disk_hurts(file: Callable[..., list[Finding]]) -> None:
    found = one(file(max_bytes=1 << 50), "disk")
    assert found.severity == "harm"
    assert "max_bytes=" in found.fix


def fill(q: TaskQueue) -> None:
    while True:
        q.enqueue(Task("t", b"x" * 1000))


def test_a_file_that_is_full_hurts_until_its_tasks_are_done(tmp_path: Path) -> None:
    with TaskQueue(with_sqlite(tmp_path / "nova.db", max_bytes=1 << 18), with_retry(max_retries=0)) as q:
        with pytest.raises(QueueFull):
            fill(q)
        found = one(q.check().findings, "disk")
        assert (found.severity, "QueueFull" in found.meaning) == ("harm", True), found
        q.start(lambda task: None)
        eventually(lambda: q.depth().waiting == 0)
        assert one(q.check().findings, "disk").severity == "ok"
        q.enqueue(Task("t", b"x" * 1000))


def test_a_file_that_another_process_writes_now_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / "nova.db"
    with TaskQueue(with_sqlite(path, busy_timeout=0.1)) as q:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        try:
            assert one(q.check().findings, "path").severity == "ok"
        finally:
            other.execute("ROLLBACK")
            other.close()


def test_memory_says_that_nothing_survives() -> None:
    assert severities(TaskQueue(with_memory()).check().findings) == {"durability": "hint", "connection": "ok"}


def test_whoever_follows_the_advice_on_the_disk_is_well() -> None:
    tight = facts(size=1 << 30, free=1 << 30)
    found = one(judge(tight, 3 << 30), "disk")
    assert (found.severity, found.fix) == ("harm", "free 1.0 GiB, or with_sqlite(max_bytes=2147483648)")
    assert one(judge(tight, 2_147_483_648), "disk").severity == "ok"
    assert one(judge(facts(size=1 << 30, free=2 << 30), 3 << 30), "disk").severity == "ok"
