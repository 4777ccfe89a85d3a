"""The command `nova`, run as its users run it: what it prints, where, and how it exits."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from nova import ReceivedTask, Task, TaskQueue, with_group_id, with_sqlite
from tests.command_line import NOVA, assert_complains, run
from tests.eventually import eventually


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory with `nova.db`, in which `old` has three tasks waiting and `new` none."""
    seen: list[ReceivedTask] = []
    for group in ("old", "new"):
        q = TaskQueue(with_sqlite(tmp_path / "nova.db"), with_group_id(group))
        q.start(seen.append)
        if group == "new":
            q.enqueue_batch([Task("t", i) for i in range(3)])
            eventually(lambda: len(seen) == 3)
        assert q.stop()
    return tmp_path


def test_list_prints_a_table(directory: Path) -> None:
    finished = run(directory, "groups", "list", "--url", "sqlite:///nova.db")
    assert (finished.returncode, finished.stderr) == (0, "")
    assert [line.split() for line in finished.stdout.splitlines()] == [
        ["GROUP", "QUEUES", "WAITING", "ACTIVE"],
        ["new", "default", "0", "no"],
        ["old", "default", "3", "no"],
    ]


def test_list_prints_json_and_nothing_else(directory: Path) -> None:
    finished = run(directory, "groups", "list", "--json", NOVA_URL="sqlite:///nova.db")
    assert (finished.returncode, finished.stderr) == (0, "")
    new, old = json.loads(finished.stdout)
    assert list(old) == ["name", "queues", "topics", "waiting", "active"]
    assert (old["name"], old["queues"], old["waiting"], old["active"]) == ("old", ["default"], 3, False)
    assert old["topics"] == new["topics"]


def test_a_prefix_without_groups(tmp_path: Path) -> None:
    assert run(tmp_path, "groups", "list", "--url", "sqlite:///n.db").stdout == "no groups\n"
    assert run(tmp_path, "groups", "list", "--url", "sqlite:///n.db", "--json").stdout == "[]\n"


def test_remove_takes_the_queue_from_a_file(directory: Path) -> None:
    (directory / "queue.toml").write_text('[sqlite]\npath = "nova.db"\n', encoding="utf-8")
    finished = run(directory, "groups", "remove", "old", "--yes", "--config", "queue.toml", NOVA_URL="memory://other")
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, "removed the group 'old'\n", "")
    left = run(directory, "groups", "list", "--json", NOVA_CONFIG="queue.toml")
    assert [group["name"] for group in json.loads(left.stdout)] == ["new"]


@pytest.mark.parametrize("option", ["--config=queue.toml", "--url=sqlite:///nova.db"])
def test_variables_of_options_hold_beside_a_file_or_url_as_they_do_for_a_worker(tmp_path: Path, option: str) -> None:
    """Else `nova dead` would look at another group than the worker that was started with the same words."""
    (tmp_path / "queue.toml").write_text('group_id = "file"\n[sqlite]\npath = "nova.db"\n', encoding="utf-8")
    found = json.loads(run(tmp_path, "queues", "--json", option, NOVA_GROUP_ID="told", NOVA_URL="").stdout)
    assert found["group"] == "told"
    assert_complains(run(tmp_path, "queues", option, NOVA_GROUPID="told"), 2, "did you mean NOVA_GROUP_ID")
    bench = run(tmp_path, "bench", "--tasks", "100", "--lone", "1", option, NOVA_SQLITE_MAX_BYTES="1")
    assert_complains(bench, 1, "max_bytes")


def test_remove_prints_json(directory: Path) -> None:
    finished = run(directory, "groups", "remove", "old", "--yes", "--json", "--url", "sqlite:///nova.db")
    assert (finished.returncode, json.loads(finished.stdout)) == (0, {"removed": "old"})


def test_remove_needs_a_yes_where_nobody_can_answer(directory: Path) -> None:
    assert_complains(run(directory, "groups", "remove", "old", "--url", "sqlite:///nova.db"), 2, "give --yes")
    assert '"old"' in run(directory, "groups", "list", "--json", "--url", "sqlite:///nova.db").stdout


@pytest.mark.parametrize(("answer", "code", "left"), [("y", 0, ["new"]), ("n", 1, ["new", "old"])])
def test_remove_asks_on_a_terminal(directory: Path, answer: str, code: int, left: list[str]) -> None:
    ours, theirs = os.openpty()
    os.write(ours, f"{answer}\n".encode())
    finished = subprocess.run(
        [NOVA, "groups", "remove", "old", "--url", "sqlite:///nova.db"],
        cwd=directory, stdin=theirs, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    os.close(ours)
    os.close(theirs)
    assert finished.returncode == code, finished
    assert "drop 3 messages" in finished.stderr
    listed = run(directory, "groups", "list", "--json", "--url", "sqlite:///nova.db")
    assert [group["name"] for group in json.loads(listed.stdout)] == left


def test_what_the_operation_refuses_exits_1(directory: Path) -> None:
    url = "sqlite:///nova.db"
    assert_complains(run(directory, "groups", "remove", "odl", "--yes", "--url", url), 1, "'odl'", "new, old")
    assert_complains(run(directory, "groups", "list", "--url", "sqlite:///no/nova.db"), 1, "no/nova.db")
    with TaskQueue(with_sqlite(directory / "nova.db"), with_group_id("old")) as q:
        q.start(lambda task: None)
        assert_complains(run(directory, "groups", "remove", "old", "--yes", "--url", url), 1, "stop its workers first")
    assert (directory / "nova.db").exists()


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ((), "Missing command"),
        (("groups",), "Missing command"),
        (("groups", "lsit"), "lsit"),
        (("groups", "list", "--jsn"), "--jsn"),
        (("groups", "remove", "--yes"), "NAME"),
        (("groups", "list"), "NOVA_CONFIG"),
        (("groups", "list", "--config", "no.toml"), "no.toml"),
        (("groups", "list", "--url", "sqlit:///n.db"), "did you mean 'sqlite'"),
        (("groups", "list", "--url", "memory://", "--config", "x"), "keep one"),
        (("groups", "list", "--url", ""), "--url: expected a URL"),
        (("groups", "remove", "a.b", "--yes", "--url", "sqlite:///n.db"), "no dots"),
    ],
)
def test_wrong_usage_or_configuration_exits_2_and_opens_nothing(
    tmp_path: Path, arguments: tuple[str, ...], word: str
) -> None:
    assert_complains(run(tmp_path, *arguments), 2, word)
    assert list(tmp_path.iterdir()) == []


def test_version_names_nova_python_and_every_library_of_an_extra(tmp_path: Path) -> None:
    found = json.loads(run(tmp_path, "version", "--json").stdout)
    assert found["nova"] == metadata.version("nova-taskqueue")
    assert found["python"] == platform.python_version()
    assert found["libraries"]["msgspec"] == metadata.version("msgspec")
    assert {"confluent-kafka", "pika", "rocketmq-python-client", "typer"} < found["libraries"].keys()
    table = run(tmp_path, "version").stdout.splitlines()
    assert table[0].split() == ["NAME", "VERSION"]
    assert table[1].split() == ["nova", found["nova"]]


def test_a_library_that_is_missing_has_no_version(tmp_path: Path) -> None:
    code = """
from importlib import metadata
import sys
real = metadata.version
def version(name):
    if name == "pika":
        raise metadata.PackageNotFoundError(name)
    return real(name)
metadata.version = version
from nova.cli.main import main
sys.argv[1:] = ["version", "--json"]
sys.exit(main())"""
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(finished.stdout)["libraries"]["pika"] is None


# What the user has typed, and what is offered.
COMPLETIONS = [("nova de", "dead"), ("nova dead re", "requeue"), ("nova worker --con", "--concurrency --config")]
COMPLETE = {
    "bash": """
COMP_WORDS=($typed); COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
_nova_completion nova
printf '%s\\n' "${COMPREPLY[@]}"
""",
    # Its line editor is there on a terminal alone: what the function hands it is printed instead.
    "zsh": """
_arguments() { print -r -- "$@" | grep -oE '"[^"]+":' | tr -d '":' }
words=(${=typed}); CURRENT=${#words}
_nova_completion
""",
    "fish": "complete -C $typed | cut -f 1",
}
"""Presses TAB behind `$typed`, after the script that was shown has been read; prints what is offered."""


@pytest.mark.parametrize(("typed", "offered"), COMPLETIONS)
@pytest.mark.parametrize("shell", COMPLETE)
def test_a_shell_completes_commands_and_options(tmp_path: Path, shell: str, typed: str, offered: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"needs {shell}")
    shown = run(tmp_path, "--show-completion", shell, _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1").stdout
    first = {"bash": "", "zsh": "compdef() { : }\n", "fish": ""}[shell]
    finished = subprocess.run(
        [shell, "-c", f"{first}{shown}{COMPLETE[shell]}"],
        env={**os.environ, "typed": typed, "PATH": f"{NOVA.parent}:{os.environ['PATH']}", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert sorted(finished.stdout.split()) == sorted(offered.split()), finished


def test_completion_is_installed_for_bash(tmp_path: Path) -> None:
    finished = run(
        tmp_path, "--install-completion", "bash", HOME=str(tmp_path), _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1"
    )
    assert finished.returncode == 0, finished
    (installed,) = (tmp_path / ".bash_completions").iterdir()
    assert "_NOVA_COMPLETE=complete_bash" in installed.read_text(encoding="utf-8")


@pytest.mark.parametrize("arguments", [("version",), ("version", "--json")], ids=["table", "JSON"])
def test_output_that_cannot_be_written_is_one_error(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """A full disk, say: whoever reads the file must not take half of it for all."""
    with open("/dev/full", "w") as full:
        finished = subprocess.run([NOVA, *arguments], cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True)
    assert finished.returncode == 1
    assert finished.stderr == "nova: cannot write to standard output: No space left on device\n"


def test_help_says_what_exit_codes_mean(tmp_path: Path) -> None:
    finished = run(tmp_path, "--help")
    assert finished.returncode == 0
    assert "groups" in finished.stdout
    assert "2 wrong usage" in finished.stdout


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_without_the_extra_one_line_says_how_to_get_it(tmp_path: Path, missing: str) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None\nfrom nova.cli.main import main\nsys.exit(main())"
    finished = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert_complains(finished, 2, f"'{missing}' is missing", "pip install 'nova-taskqueue[cli]'")
