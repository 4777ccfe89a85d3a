"""`nova worker`: what it runs, how it stops, and what it says when it cannot start. On every broker: tests/conformance."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nova import Task, TaskQueue, with_sqlite
from tests.command_line import APP, NovaWorker, assert_complains, lives, run
from tests.eventually import eventually, never

URL = "sqlite:///nova.db"
START = 30.0
"""Seconds in which a worker has started, on a busy machine."""
STOP = 20.0
"""Seconds in which one has stopped that has little to do; far less than the grace of the tests that must not wait for it."""
WELL_BEFORE_IT_GIVES_UP = 5.0
"""Seconds; a start gives a broker that does not answer ten."""

DECORATED = """
from nova import TaskQueue
q = TaskQueue.from_env()
@q.task("mail")
def mail(n: int):
    write("mail", n)
"""

Start = Callable[..., NovaWorker]

pytestmark = pytest.mark.slow  # each starts processes, and most stop them


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[NovaWorker] = []

    def start_worker(*arguments: str, **environment: str) -> NovaWorker:
        started.append(NovaWorker(tmp_path, *arguments, **environment))
        return started[-1]

    yield start_worker
    for worker in started:
        worker.close()


@pytest.fixture
def q(tmp_path: Path) -> Iterator[TaskQueue]:
    with TaskQueue(with_sqlite(tmp_path / "nova.db")) as queue:
        yield queue


# --- what it runs ------------------------------------------------------------------------------------------------------


def test_a_function_handles_the_tasks_of_the_configured_queue(q: TaskQueue, start: Start) -> None:
    worker = start("app:handle", "--url", URL, "--concurrency", "2")
    q.enqueue(Task("t", id="a"))
    eventually(lambda: worker.words("done")["a"] == 1, START)
    eventually(lambda: "concurrency 2" in worker.said)  # which it may say after the first task
    worker.signal()
    assert worker.end(STOP) == 0


def test_a_queue_runs_its_decorated_tasks(q: TaskQueue, start: Start, tmp_path: Path) -> None:
    module = APP + DECORATED
    (tmp_path / "app.py").write_text(module, encoding="utf-8")
    worker = start("app:q", NOVA_URL=URL)
    q.enqueue(Task("mail", {"n": 7}))
    eventually(lambda: worker.words("mail")["7"] == 1, START)


def test_the_option_reaches_a_queue_that_the_environment_names(q: TaskQueue, start: Start, tmp_path: Path) -> None:
    module = APP + DECORATED
    (tmp_path / "app.py").write_text(module, encoding="utf-8")
    (tmp_path / "nova.toml").write_text('[sqlite]\npath = "nova.db"\n', encoding="utf-8")
    worker = start("app:q", "--config", "nova.toml", NOVA_URL="sqlite:///other.db")
    q.enqueue(Task("mail", {"n": 7}))
    eventually(lambda: worker.words("mail")["7"] == 1, START)
    assert not (tmp_path / "other.db").exists()


def test_a_function_of_batches(q: TaskQueue, start: Start) -> None:
    q.enqueue_batch([Task("t") for _ in range(7)])
    worker = start("app:load", "--url", URL, "--batch-size", "5", "--batch-window", "0.2")
    eventually(lambda: worker.words("batch") == {"5": 1, "2": 1}, START)


def test_only_the_queues_that_are_named(q: TaskQueue, start: Start) -> None:
    for name in ("default", "mail", "rows", "other"):
        q.enqueue(Task("t", id=name), queue=name)
    worker = start("app:handle", "--url", URL, "--queues", "mail,rows", "--queue", "other")
    eventually(lambda: worker.words("done").keys() == {"mail", "rows", "other"}, START)
    never(lambda: worker.words("done")["default"], 0.3)


def test_logging_that_the_module_has_set_up_stays(start: Start, tmp_path: Path) -> None:
    module = APP + 'import logging\nlogging.basicConfig(format="MINE %(message)s", level="INFO")\n'
    (tmp_path / "app.py").write_text(module, encoding="utf-8")
    worker = start("app:handle", "--url", URL)
    eventually(lambda: "MINE nova-worker-1 started" in worker.said, START)


def test_the_log_level(start: Start) -> None:
    worker = start("app:handle", "--url", URL, "--log-level", "warning", "--processes", "2")
    eventually(lambda: (worker.directory / "nova.db").exists(), START)
    worker.signal()
    assert worker.end(STOP) == 0
    assert worker.said == ""


def test_a_worker_whose_broker_nobody_else_sees_says_so(start: Start) -> None:
    worker = start("app:handle", "--url", "memory://shop")
    eventually(lambda: "nova-worker-1 started" in worker.said, START)
    eventually(
        lambda: re.search(r"WARNING .*'memory' keeps tasks in one process: .* only what this process", worker.said)
    )
    worker.signal()
    assert worker.end(STOP) == 0


# --- several processes -------------------------------------------------------------------------------------------------


def test_a_killed_process_is_started_again_and_the_log_says_so(q: TaskQueue, start: Start) -> None:
    worker = start("app:handle", "--url", f"{URL}?lease=1", "--processes", "2")
    eventually(lambda: worker.said.count("nova-worker-1 started") == 2, START)
    victim = pids_of(worker)[0]
    os.kill(victim, signal.SIGKILL)
    eventually(lambda: worker.said.count("nova-worker-1 started") == 3, START)
    assert re.search(
        rf"WARNING .*worker process 1, pid {victim}, was killed by SIGKILL; starting it again in 0\.[45]\d* s",
        worker.said,
    ), worker.said
    worker.signal()
    assert worker.end(STOP) == 0


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc")
def test_the_url_which_may_hold_a_password_is_on_no_command_line_of_a_process(q: TaskQueue, start: Start) -> None:
    worker = start("app:handle", "--url", URL, "--processes", "2", NOVA_CONFIG="another.toml")
    eventually(lambda: worker.said.count("nova-worker-1 started") == 2, START)
    lines = [Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8") for pid in pids_of(worker)]
    assert len(lines) == 2
    assert all("app:handle" in line and URL not in line for line in lines), lines
    worker.signal()
    assert worker.end(STOP) == 0


def test_a_task_that_kills_its_process_ends_in_the_dead_letters(q: TaskQueue, start: Start, tmp_path: Path) -> None:
    module = APP + "def crash(task):\n    if task.id == 'bad': os._exit(3)\n    write('done', task.id)\n"
    (tmp_path / "app.py").write_text(module, encoding="utf-8")
    q.enqueue(Task("t", id="bad"))
    worker = start("app:crash", "--url", f"{URL}?lease=1", "--processes", "2")
    eventually(lambda: "exited with 3; starting it again" in worker.said, START)
    q.enqueue_batch([Task("t", id=f"t{n}") for n in range(20)])
    eventually(lambda: len(worker.words("done")) == 20, START)
    eventually(lambda: [dead.reason for dead in q.dead.list()] == ["crashed its worker 3 times"], 90)
    assert worker.process.poll() is None


def test_a_task_that_kills_the_first_process_before_it_is_ready_does_not_end_the_command(
    q: TaskQueue, start: Start, tmp_path: Path
) -> None:
    module = """
import os, time
from nova import TaskQueue
class Slow(TaskQueue):
    def start(self, *args, **options):
        super().start(*args, **options)
        time.sleep(2)  # by then the task has come
q = Slow.from_env()
@q.task("bad")
def bad():
    os._exit(3)
"""
    (tmp_path / "app.py").write_text(module, encoding="utf-8")
    q.enqueue(Task("bad", {}, id="bad"))
    worker = start("app:q", "--url", f"{URL}?lease=1", "--processes", "2")
    eventually(lambda: [dead.reason for dead in q.dead.list()] == ["crashed its worker 3 times"], 90)
    assert worker.process.poll() is None


def test_every_process_is_told_once_though_a_signal_reaches_all(q: TaskQueue, start: Start) -> None:
    """As systemd sends it, to the command and each of its processes: nobody may take that for the second one."""
    worker = start("app:handle", "--url", URL, "--processes", "2", "--concurrency", "1")
    eventually(lambda: worker.said.count("nova-worker-1 started") == 2, START)
    q.enqueue_batch([Task("slow", 1.5, id="a"), Task("slow", 1.5, id="b")])
    eventually(lambda: len(worker.words("start")) == 2)
    for pid in [*pids_of(worker), worker.process.pid, *pids_of(worker)]:
        os.kill(pid, signal.SIGTERM)
    assert worker.end(STOP) == 0
    assert worker.words("done") == {"a": 1, "b": 1}


@pytest.mark.parametrize("processes", ["1", "2"])
def test_one_request_that_arrives_twice_is_one(q: TaskQueue, start: Start, processes: str) -> None:
    """As `timeout` sends it, to the command and to its group, and a runner that passes on what the terminal sent already."""
    worker = start("app:handle", "--url", URL, "--processes", processes, "--concurrency", "1")
    q.enqueue(Task("slow", 1.5, id="a"))
    eventually(lambda: worker.words("start")["a"] == 1, START)
    worker.signal()
    threading.Event().wait(0.03)  # so that the system does not merge them
    worker.signal()
    assert worker.end(STOP) == 0
    assert worker.words("done") == {"a": 1}


def test_ctrl_c_does_not_reach_the_programs_that_handlers_run(q: TaskQueue, start: Start, tmp_path: Path) -> None:
    """A terminal interrupts all of the command's group; a handler's own `ffmpeg` must finish like the task it works for."""
    lines = ("import subprocess", "def convert(task):", "    write('start', task.id)")
    runs = ("    subprocess.run(['sleep', '1.5'], check=True)", "    write('done', task.id)")
    (tmp_path / "app.py").write_text("\n".join([APP, *lines, *runs]))
    worker = start("app:convert", "--url", URL, "--processes", "2")
    q.enqueue(Task("video", id="a"))
    eventually(lambda: worker.words("start")["a"] == 1, START)
    os.killpg(worker.process.pid, signal.SIGINT)
    assert worker.end(STOP) == 0
    assert worker.words("done") == {"a": 1}


def test_processes_end_in_order_when_their_supervisor_is_killed(q: TaskQueue, start: Start) -> None:
    worker = start("app:handle", "--url", URL, "--processes", "2", "--concurrency", "1")
    eventually(lambda: worker.said.count("nova-worker-1 started") == 2, START)
    q.enqueue_batch([Task("slow", 1.0, id="a"), Task("slow", 1.0, id="b")])
    eventually(lambda: len(worker.words("start")) == 2)
    worker.signal(signal.SIGKILL)
    eventually(lambda: not any(map(lives, pids_of(worker))), STOP)
    assert worker.words("done") == {"a": 1, "b": 1}


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_second_signal_ends_it_at_once(q: TaskQueue, start: Start, processes: str) -> None:
    q.enqueue(Task("slow", 600, id="held"))
    worker = start("app:handle", "--url", URL, "--processes", processes, "--grace", "600")
    eventually(lambda: worker.words("start")["held"] == 1, START)
    worker.signal()
    never(lambda: worker.process.poll() is not None, 0.5, "the first signal waits for the handler")
    worker.signal()
    assert worker.end(STOP) == 1
    assert "killing it" not in worker.said, "it ended by itself"
    eventually(lambda: not any(map(lives, worker.pids("start"))))


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_second_signal_ends_it_at_once_while_its_broker_does_not_answer(start: Start, processes: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(START)
        worker = start("app:handle", "--url", f"kafka://127.0.0.1:{silent.getsockname()[1]}", "--processes", processes)
        connection, _ = silent.accept()
        with connection:
            worker.signal()
            never(lambda: worker.process.poll() is not None, 0.5, "the first signal waits for the start")
            worker.signal()
            assert worker.end(WELL_BEFORE_IT_GIVES_UP) == (1 if processes == "1" else 0)
    assert "killing it" not in worker.said, "it ended by itself"


def test_a_handler_that_outlasts_the_grace_is_given_up(q: TaskQueue, start: Start) -> None:
    q.enqueue(Task("slow", 600, id="held"))
    worker = start("app:handle", "--url", URL, "--processes", "2", "--grace", "0.5")
    eventually(lambda: worker.words("start")["held"] == 1, START)
    worker.signal()
    assert worker.end(STOP) == 1
    assert "1 handlers still ran" in worker.said


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_signal_before_the_module_is_loaded_ends_it(start: Start, tmp_path: Path, processes: str) -> None:
    (tmp_path / "app.py").write_text(APP + 'import time\nwrite("import", 1)\ntime.sleep(600)\n', encoding="utf-8")
    worker = start("app:handle", "--url", URL, "--processes", processes)
    eventually(lambda: worker.words("import"), START)
    worker.signal()
    assert worker.end(STOP) == (0 if processes == "2" else -signal.SIGTERM)


def test_a_file_here_that_is_called_like_a_library_is_not_taken_for_it(start: Start, tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("raise RuntimeError\n", encoding="utf-8")
    worker = start("app:handle", "--url", URL, "--processes", "2")
    eventually(lambda: worker.said.count("nova-worker-1 started") == 2, START)
    worker.signal()
    assert worker.end(STOP) == 0


def test_overdue_handlers_exit_75_alone_and_are_started_again_under_a_supervisor(q: TaskQueue, start: Start) -> None:
    q.enqueue(Task("slow", 600, id="stuck"), process_timeout=0.2, max_retries=0)
    alone = start("app:handle", "--url", URL, "--concurrency", "1", "--grace", "1")
    assert alone.end(START) == 75
    q.enqueue(Task("slow", 600, id="stuck"), process_timeout=0.2, max_retries=0)
    worker = start("app:handle", "--url", URL, "--concurrency", "1", "--grace", "1", "--processes", "2")
    eventually(lambda: "exited with 75; starting it again" in worker.said, START)
    assert worker.process.poll() is None


# --- what cannot start -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("processes", ["1", "3"])
@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("nothing:handle", ("cannot import 'nothing'", "No module named 'nothing'")),
        ("app:hande", ("has no 'hande'", "did you mean 'handle'")),
        ("app:LOG", ("expected a TaskQueue or a function", "'app:LOG'")),
        ("app:write_two", ("cannot be called with one argument",)),
        ("app:mail", ("is one task of a TaskQueue", "name the queue")),
        ("app:fixed", ("names its broker itself", "from_env")),
        ("broken:handle", ("cannot import 'broken'", "KeyError: 'HOMEE'", "broken.py, line 2")),
        ("ends:handle", ("cannot import 'ends'", "SystemExit")),
        ("wrong:q", ("importing 'wrong'", "with_sqlite(lease)")),
    ],
)
def test_what_cannot_start_is_one_clear_error_and_no_loop(
    tmp_path: Path, target: str, words: tuple[str, ...], processes: str
) -> None:
    (tmp_path / "app.py").write_text(
        APP
        + "from nova import TaskQueue, with_memory\n"
        + "fixed = TaskQueue(with_memory())\n@fixed.task('mail')\ndef mail(n: int): ...\n"
        + "def write_two(a, b): ...\n",
        encoding="utf-8",
    )
    (tmp_path / "broken.py").write_text("import os\nos.environ['HOMEE']\n", encoding="utf-8")
    (tmp_path / "ends.py").write_text("import sys\nsys.exit(0)\n", encoding="utf-8")
    (tmp_path / "wrong.py").write_text(
        "from nova import TaskQueue, with_sqlite\nq = TaskQueue(with_sqlite(lease=-1))\n", encoding="utf-8"
    )
    finished = run(
        tmp_path, "worker", target, "--url", URL, "--processes", processes, "--log-level", "warning"
    )  # fmt: skip
    assert_complains(finished, 2, *words)
    assert not (tmp_path / "nova.db").exists()


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_broker_that_is_not_there_at_the_start_exits_1(tmp_path: Path, processes: str) -> None:
    (tmp_path / "app.py").write_text(APP, encoding="utf-8")
    arguments = ("--url", "sqlite:///no/nova.db", "--processes", processes, "--log-level", "warning")
    assert_complains(run(tmp_path, "worker", "app:handle", *arguments), 1, "no/nova.db")


def test_the_traceback_is_there_for_those_who_ask(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import os\nos.environ['HOMEE']\n", encoding="utf-8")
    finished = run(tmp_path, "worker", "broken:handle", "--url", URL, "--log-level", "debug")
    assert finished.returncode == 2
    assert "Traceback" in finished.stderr


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ((), "MODULE:OBJECT"),
        (("app",), "expected MODULE:OBJECT"),
        (("app.py:q",), "expected MODULE:OBJECT"),
        (("./app:q",), "expected MODULE:OBJECT"),
        (("app:q", "--processes", "0"), "processes"),
        (("app:q", "--batch-window", "1"), "--batch-size"),
        (("app:q", "--url", URL, "--config", "x"), "keep one"),
        (("app:q", "--grace", "nan"), "--grace"),
        (("app:q", "--concurency", "3"), "--concurency"),
        (("app:handle",), "NOVA_CONFIG"),
        (("app:handle", "--url", URL, "--queues", "a.b"), "no dots"),
        (("app:handle", "--url", URL, "--batch-size", "5", "--batch-window", "-1"), "window"),
    ],
)
def test_a_wrong_worker_exits_2_and_opens_nothing(tmp_path: Path, arguments: tuple[str, ...], word: str) -> None:
    (tmp_path / "app.py").write_text("def handle(task): ...\n", encoding="utf-8")
    assert_complains(run(tmp_path, "worker", *arguments), 2, word)
    assert not (tmp_path / "nova.db").exists()


# --- reload ------------------------------------------------------------------------------------------------------------


def test_reload_runs_what_the_file_says_now(q: TaskQueue, start: Start, tmp_path: Path) -> None:
    worker = start("app:handle", "--url", URL, "--reload")
    eventually(lambda: worker.said.count("nova-worker-1 started") == 1, START)
    (tmp_path / "app.py").write_text("def handle(task) broken", encoding="utf-8")
    eventually(lambda: "waiting for a change" in worker.said, START)
    changed = APP + "def handle(task):\n    write('new', task.id)\n"
    (tmp_path / "app.py").write_text(changed, encoding="utf-8")
    q.enqueue(Task("t", id="a"))
    eventually(lambda: worker.words("new")["a"] == 1, START)
    worker.signal()
    assert worker.end(STOP) == 0


def test_reload_without_its_extra_says_how_to_get_it(tmp_path: Path) -> None:
    code = "import sys; sys.modules['watchfiles'] = None\nfrom nova.cli.main import main\nsys.exit(main())"
    finished = run_python(tmp_path, code, "worker", "app:handle", "--reload", "--url", URL)
    assert finished[0] == 2
    assert "pip install 'nova-taskqueue[cli,reload]'" in finished[1]


def run_python(directory: Path, code: str, *arguments: str) -> tuple[int, str]:
    finished = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=directory, capture_output=True, text=True, timeout=60, check=False
    )
    return finished.returncode, finished.stderr


def pids_of(worker: NovaWorker) -> list[int]:
    """The processes that it has started so far."""
    return [int(pid) for pid in re.findall(r"worker process \d+ started, pid (\d+)", worker.said)]
