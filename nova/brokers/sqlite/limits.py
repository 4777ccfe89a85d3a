"""What a file's place, room and settings mean for tasks: numbers in, findings out. Pure.

Source: SQLite, "How To Corrupt An SQLite Database File", section 2 (network file systems), and "Write-Ahead Logging".
"""

from __future__ import annotations

import os.path
import re
from dataclasses import dataclass

from nova.brokers.base import Finding

__all__ = ["FileFacts", "judge", "kind_of_mount"]

NETWORK = frozenset(
    {
        *("9p", "afs", "beegfs", "ceph", "cifs", "coda", "fuse.ceph", "fuse.glusterfs", "fuse.rclone", "fuse.s3fs"),
        *("fuse.sshfs", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "smb3", "smbfs"),
    }
)
"""File systems of other machines, by their name in Linux's table of mounts."""
IN_MEMORY = frozenset({"ramfs", "tmpfs"})
OF_CONTAINER = frozenset({"aufs", "overlay"})
LITTLE = 1 << 30
"""Bytes: with less left on a disk that nothing bounds, it is worth a word."""
NOTHING = 8 << 20
"""Bytes: with less left on a disk no write is sure, for SQLite's log alone grows to four MiB before it is written back."""
LEAST_ROOM = 1 << 16
"""Bytes: with less left up to `max_bytes`, a few tasks at most are taken."""
FULL = 2
"""`PRAGMA synchronous`: each commit waits for the disk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFacts:
    """A file as it is.

    Attributes:
        mount: the kind of its file system; None = this system does not tell.
        size: bytes that the file has now, or will have when its log is written back.
        unused: those of them that hold nothing and will be filled before the file grows.
        free: bytes that its disk has left for us.
        refusal: why it cannot be written, or None.
        synchronous: as the pragma says it.
    """

    path: str
    mount: str | None
    size: int
    unused: int
    free: int
    journal_mode: str
    synchronous: int
    refusal: str | None


def kind_of_mount(path: str, mountinfo: str) -> str | None:
    """The kind of the file system that a path, absolute and without links, lies on.

    Args:
        mountinfo: Linux's table of mounts, `/proc/self/mountinfo` (proc(5)).
    """
    best, kind = "", None
    for line in mountinfo.splitlines():
        left, mark, right = line.partition(" - ")
        fields = left.split(" ")
        if not mark or len(fields) < 5:
            continue
        point = _OCTAL.sub(lambda found: chr(int(found[1], 8)), fields[4])
        if len(point) >= len(best) and os.path.commonpath([point, path]) == point:
            best, kind = point, right.split(" ")[0]
    return kind


def judge(file: FileFacts, max_bytes: int | None) -> list[Finding]:
    """All there is to say."""
    return [_judge_writing(file), _judge_mount(file), _judge_room(file, max_bytes), _judge_settings(file)]


def _judge_writing(file: FileFacts) -> Finding:
    if file.refusal is None:
        return Finding("ok", "path", f"{file.path} can be written")
    return Finding(
        "harm",
        "path",
        file.refusal,
        "nothing can be enqueued or handled",
        "give this user the right to write the file and its directory, or another path",
    )


def _judge_mount(file: FileFacts) -> Finding:
    kind = file.mount
    if kind is None:
        return Finding(
            "unread",
            "file system",
            "this system has no table of mounts",
            "",
            f"df -T {file.path}: it must be a local one",
        )
    if kind in NETWORK:
        return Finding(
            "harm",
            "file system",
            f"{kind}, of the network",
            "SQLite's locks fail there: tasks are lost or run twice, and the file may be damaged",
            "a path on a local disk; for several machines another broker",
        )
    if kind in IN_MEMORY:
        return Finding(
            "harm", "file system", f"{kind}, in memory", "all tasks are gone after a restart", "a path on a disk"
        )
    if kind in OF_CONTAINER:
        return Finding(
            "hint",
            "file system",
            f"{kind}, a container's own",
            "all tasks are gone with the container",
            "a path on a volume, mounted from a local disk",
        )
    return Finding("ok", "file system", kind)


def _judge_room(file: FileFacts, max_bytes: int | None) -> Finding:
    if file.free < NOTHING:
        return Finding(
            "harm",
            "disk",
            f"{_shown(file.free)} free",
            "nothing can be enqueued or handled once the rest is used",
            "free some, or a path on another disk",
        )
    if max_bytes is None:
        found = f"{_shown(file.free)} free, no with_sqlite(max_bytes=…)"
        if file.free >= LITTLE:
            return Finding("ok", "disk", found)
        return Finding(
            "hint", "disk", found, "the file may fill the disk for everybody", "free some, or with_sqlite(max_bytes=…)"
        )
    return _judge_bound(file, max_bytes)


def _judge_bound(file: FileFacts, max_bytes: int) -> Finding:
    left = max(0, max_bytes - file.size)
    if left + file.unused < LEAST_ROOM:
        return Finding(
            "harm",
            "disk",
            f"room for {_shown(left + file.unused)} more, with_sqlite(max_bytes={max_bytes})",
            "the file is full: enqueue fails with QueueFull until tasks are done",
            "let workers catch up, purge dead letters, or raise with_sqlite(max_bytes=…)",
        )
    found = f"{_shown(file.free)} free, the file may grow by {_shown(left)} to with_sqlite(max_bytes={max_bytes})"
    if file.free >= left:
        return Finding("ok", "disk", found)
    return Finding(
        "harm",
        "disk",
        found,
        "the disk is full before the file is",
        f"free {_shown(left - file.free)}, or with_sqlite(max_bytes={file.size + file.free})",
    )


def _judge_settings(file: FileFacts) -> Finding:
    found = f"journal_mode={file.journal_mode}, synchronous={file.synchronous}"
    if file.journal_mode == "wal" and file.synchronous >= FULL:
        return Finding("ok", "settings", found)
    return Finding(
        "harm",
        "settings",
        found,
        "expected wal and 2 (FULL): a power cut may lose confirmed tasks, or readers block the writer",
        "a path on a local disk, where SQLite can use a write-ahead log",
    )


def _shown(count: int) -> str:
    return f"{count / (1 << 30):.1f} GiB" if count >= 1 << 30 else f"{count / (1 << 20):.1f} MiB"


_OCTAL = re.compile(r"\\([0-7]{3})")
