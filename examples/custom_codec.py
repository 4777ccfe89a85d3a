"""A codec of your own: how a task is written on the topic. Here JSON, compressed where that pays.

$ python -m examples.custom_codec [URL]

It prints how many bytes the codec made of a large payload, and that a task written as `json` is still read: every message
names its codec, so formats can be switched while tasks wait. A codec of your own must be given to every worker that shall
read it; one that does not know it buries the task with its bytes.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Mapping

from examples.broker import broker_url
from nova import DecodeError, ReceivedTask, Task, TaskQueue, with_codec, with_message_format
from nova.codecs import find_codec
from nova.envelope import Content


class ZippedJson:
    """`json`, compressed above 500 bytes. Called from many threads at once, so it keeps no state."""

    name = "zipped-json"

    def __init__(self) -> None:
        self._json = find_codec("json")

    def encode(self, content: Content) -> bytes:
        body = self._json.encode(content)
        return zlib.compress(body) if len(body) > 500 else body

    def decode(self, body: bytes, headers: Mapping[str, str]) -> Content:
        if body.startswith(b"{"):
            return self._json.decode(body, headers)
        try:
            return self._json.decode(zlib.decompress(body), headers)
        except zlib.error as error:
            raise DecodeError(f"zipped-json: {error}") from error  # the task is buried with these bytes


class Measured(ZippedJson):
    """Remembers what it made, for this example to print."""

    largest = 0

    def encode(self, content: Content) -> bytes:
        body = super().encode(content)
        self.largest = max(self.largest, len(body))
        return body


def main() -> None:
    rows = [{"city": "Springfield", "amount": n % 7} for n in range(500)]
    codec, seen, both = Measured(), dict[str, int](), threading.Event()

    def handle(task: ReceivedTask) -> None:
        seen[task.id] = len(task.json())
        if len(seen) == 2:
            both.set()

    with broker_url() as url, TaskQueue.from_url(url, with_message_format("json")) as old:
        old.enqueue(Task("rows", rows, id="as-json"))
        with TaskQueue.from_url(url, with_codec(codec)) as queue:
            queue.enqueue(Task("rows", rows, id="as-zipped-json"))
            print(f"zipped to less than a tenth: {codec.largest < 2_500}")
            queue.start(handle)
            both.wait(timeout=20)
    for name, count in sorted(seen.items()):
        print(f"{name}: {count} rows")


if __name__ == "__main__":
    main()
