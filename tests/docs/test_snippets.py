"""README and docs are true as far as a machine can tell: snippets run, links and named tests exist, tables are complete."""

from __future__ import annotations

import ast
import inspect
import re
import shlex
import subprocess
import sys
import tomllib
import uuid
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import yaml

import nova
from nova import TaskQueue, envelope
from tests.eventually import eventually

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
LINKING = sorted([*PAGES, ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", *(ROOT / "examples").rglob("*.md")])

NOT_RUN: set[tuple[str, str]] = set()
"""(page, reason) of every block marked `<!-- no-run: reason -->`; none at present."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    language: str
    line: int
    text: str
    no_run: str | None
    needs: str | None


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks_of(page: Path) -> list[Block]:
    blocks: list[Block] = []
    fence: tuple[str, int] | None = None
    collected: list[str] = []
    before = ""
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        if fence is None and line.startswith("```"):
            fence, collected = (line[3:].strip(), number), []
        elif fence is not None and line == "```":
            marked = re.fullmatch(r"<!-- no-run: (.+) -->", before)
            needing = re.fullmatch(r"<!-- needs: (kafka|rabbitmq|rocketmq) -->", before)
            text = "\n".join(collected) + "\n"
            blocks.append(Block(*fence, text, marked[1] if marked else None, needing[1] if needing else None))
            fence = None
        elif fence is not None:
            collected.append(line)
        elif line.strip():
            before = line.strip()
            continue
        if fence is None:
            before = ""
    assert fence is None, f"{name_of(page)}: the block of line {fence[1]} has no end"
    return blocks


def prose_of(page: Path) -> str:
    """The page without its blocks and inline code."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]*`", "", text)


def anchors_of(page: Path) -> set[str]:
    """The anchors GitHub gives to a page's headings."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    seen: Counter[str] = Counter()
    anchors: set[str] = set()
    for heading in re.findall(r"^#{1,6} +(.+?) *#*$", text, flags=re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", plain.strip().lower()).replace(" ", "-")
        anchors.add(slug if not seen[slug] else f"{slug}-{seen[slug]}")
        seen[slug] += 1
    return anchors


RUNNER = """
import sys
namespace = {"__name__": "__main__"}
for path in sys.argv[1:]:
    line, _, source = open(path, encoding="utf-8").read().partition("\\n")
    exec(compile("\\n" * int(line) + source, path, "exec"), namespace)
"""
"""Runs files in one namespace; the first line of each is the line of its page that the block begins at."""


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_python_blocks_run_in_order(page: Path, tmp_path: Path) -> None:
    blocks = [block for block in blocks_of(page) if block.needs is None]

    run_in_order(page, blocks, tmp_path)


def pages_that_need(broker: str) -> list[Path]:
    return [page for page in PAGES if any(block.needs == broker for block in blocks_of(page))]


NAMED = re.compile(r"# ([a-z_]+)\.(py|toml)\n")
"""The first line of a block that is a file."""


@pytest.mark.parametrize(
    "page", [page for page in PAGES if NAMED.search(page.read_text(encoding="utf-8"))], ids=name_of
)
def test_files_that_a_page_shows_can_be_imported_on_their_own(page: Path, tmp_path: Path) -> None:
    test_python_blocks_run_in_order(page, tmp_path)
    for block in blocks_of(page):
        named = NAMED.match(block.text)
        if named and named[2] == "py":
            subprocess.run([sys.executable, "-c", f"import {named[1]}"], cwd=tmp_path, timeout=60, check=True)


@pytest.mark.parametrize("page", pages_that_need("rabbitmq"), ids=name_of)
def test_blocks_that_need_rabbitmq_run_in_order(page: Path, tmp_path: Path) -> None:
    """Those marked `<!-- needs: rabbitmq -->`, likewise."""
    from tests.servers.rabbitmq.cleaning import delete_prefix
    from tests.servers.rabbitmq.finding import shared_address

    address, prefix = shared_address(), f"D{uuid.uuid4().hex[:8]}"
    blocks = [
        replace(block, text=block.text.replace("amqp://guest:guest@localhost:5672/", address).replace("SHOP", prefix))
        for block in blocks_of(page)
        if block.needs == "rabbitmq"
    ]
    try:
        run_in_order(page, blocks, tmp_path)
    finally:
        delete_prefix(address, prefix)


@pytest.mark.parametrize("page", pages_that_need("rocketmq"), ids=name_of)
def test_blocks_that_need_rocketmq_run_in_order(page: Path, tmp_path: Path) -> None:
    """Those marked `<!-- needs: rocketmq -->`, likewise."""
    from tests.servers.rocketmq.cleaning import delete_prefix
    from tests.servers.rocketmq.finding import shared_address
    from tests.servers.rocketmq.server import section

    place, prefix = section(shared_address()), f"D{uuid.uuid4().hex[:8]}"
    blocks = [
        replace(
            block,
            text=block.text.replace("localhost:8081", place["endpoints"])
            .replace("localhost:9876", place["admin"])
            .replace("SHOP", prefix),
        )
        for block in blocks_of(page)
        if block.needs == "rocketmq"
    ]
    try:
        run_in_order(page, blocks, tmp_path)
    finally:
        delete_prefix(place["endpoints"], place["admin"], prefix)


@pytest.mark.parametrize("page", pages_that_need("kafka"), ids=name_of)
def test_blocks_that_need_kafka_run_in_order(page: Path, tmp_path: Path) -> None:
    """Those marked `<!-- needs: kafka -->`, on their own, on the tests' server and a prefix of their own."""
    from tests.servers.kafka.finding import shared_address  # here, so that the other pages need no client library
    from tests.servers.kafka.server import delete_topics

    address, prefix = shared_address(), f"D{uuid.uuid4().hex[:8]}"
    blocks = [
        replace(block, text=block.text.replace("localhost:9092", address).replace("SHOP", prefix))
        for block in blocks_of(page)
        if block.needs == "kafka"
    ]
    try:
        run_in_order(page, blocks, tmp_path)
    finally:
        delete_topics(address, prefix)


def run_in_order(page: Path, blocks: list[Block], tmp_path: Path) -> None:
    """Run them; a block whose first line is `# name.py` or `# name.toml` is that file, too."""
    files: list[str] = []
    for block in blocks:
        named = NAMED.match(block.text)
        if named and block.language in ("python", "toml"):
            (tmp_path / f"{named[1]}.{named[2]}").write_text(block.text, encoding="utf-8")
    for block in blocks:
        if block.language == "python" and block.no_run is None:
            file = tmp_path / f"{page.name}-line-{block.line}"
            file.write_text(f"{block.line}\n{block.text}", encoding="utf-8")
            files.append(file.name)

    finished = subprocess.run(
        [sys.executable, "-c", RUNNER, *files],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert finished.returncode == 0, f"{name_of(page)}:\n{finished.stdout}{finished.stderr}"
    assert "Exception in thread" not in finished.stderr, finished.stderr


@pytest.mark.parametrize(("name", "least"), [("cli.md", 12), ("tutorial.md", 5)])
def test_commands_print_what_the_page_shows(name: str, least: int, tmp_path: Path) -> None:
    """`…` in what a command prints stands for anything within the line. One that ends in ` &` runs on beside the others."""
    page = ROOT / "docs" / name
    shown = "".join(block.text for block in blocks_of(page) if block.language == "console")
    test_python_blocks_run_in_order(page, tmp_path)  # they make the queues that the commands look at

    commands = re.findall(r"^\$ nova (.*)\n((?:[^$].*\n)*)", shown, flags=re.MULTILINE)
    assert len(commands) >= least
    beside: list[subprocess.Popen[str]] = []
    try:
        for command, expected in commands:
            if command.endswith(" &"):
                beside.append(begun(command.removesuffix(" &"), expected, tmp_path))
            else:
                # What is done beside may take a moment to show.
                eventually(lambda: prints(command, expected, tmp_path), timeout=10 if beside else 0.1, what=command)  # noqa: B023
    finally:
        for process in beside:
            process.terminate()
    assert [process.wait(40) for process in beside] == [0] * len(beside)


def begun(command: str, expected: str, directory: Path) -> subprocess.Popen[str]:
    """A command that has printed what it should, and runs on."""
    process = subprocess.Popen(
        [Path(sys.executable).with_name("nova"), *shlex.split(command)],
        cwd=directory,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert "".join(process.stdout.readline() for _ in expected.splitlines()) == expected
    return process


def prints(command: str, expected: str, directory: Path) -> bool:
    finished = subprocess.run(
        [Path(sys.executable).with_name("nova"), *shlex.split(command)],
        cwd=directory, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    printed = "".join(f"{line.rstrip()}\n" for line in (finished.stdout + finished.stderr).splitlines())
    wanted = ".+".join(map(re.escape, expected.split("…")))
    if not re.fullmatch(wanted, printed):
        print(f"$ nova {command}\n{printed}")
        return False
    return True


def test_worker_commands_of_every_page_have_options_that_exist() -> None:
    import typer

    from nova.cli.app import app

    worker = commands_of(typer.main.get_command(app))["worker"]
    options = {option for parameter in worker.params for option in parameter.opts}
    found = 0
    for page in PAGES:
        for block in blocks_of(page):
            for line in re.findall(r"nova(?: |\", \")worker.*", block.text):
                found += 1
                assert set(re.findall(r"--[a-z-]+", line)) <= options, f"{name_of(page)}: {line}"
    assert found >= 8


def test_yaml_blocks_are_yaml() -> None:
    found = [block for page in PAGES for block in blocks_of(page) if block.language == "yaml"]

    assert [block.line for block in found if not isinstance(yaml.safe_load(block.text), dict)] == []
    assert found


def commands_of(group: Any, path: str = "") -> dict[str, Any]:
    """Every command of the command line, by its words."""
    found: dict[str, Any] = {}
    for name, command in group.commands.items():
        words = f"{path} {name}".strip()
        found |= commands_of(command, words) if hasattr(command, "commands") else {words: command}
    return found


def test_every_command_and_option_is_documented() -> None:
    import typer

    from nova.cli.app import app

    text = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    commands = commands_of(typer.main.get_command(app))

    assert {"worker", "enqueue", "dead requeue"} <= commands.keys()
    for words, command in commands.items():
        assert f"`nova {words}" in text, f"nova {words} is not in docs/cli.md"
        for option in command.params:
            if option.name not in ("supervised", "told"):  # a supervisor's words to its processes
                for name in option.opts:
                    assert not name.startswith("--") or re.search(rf"`{name}\b", text), f"nova {words}: {name}"


def test_json_of_every_command_is_documented() -> None:
    import typer

    from nova.cli.app import app

    text = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    section = text[text.index("## JSON") : text.index("## Exit codes")]
    commands = commands_of(typer.main.get_command(app))
    with_json = {words for words, command in commands.items() if any("--json" in p.opts for p in command.params)}

    assert with_json == commands.keys() - {"worker"}
    assert {re.match(r"[a-z ]+", row)[0].strip() for row in re.findall(r"^\| `(.+?)` \|", section, re.M)} >= with_json  # type: ignore[index]  # the pattern takes any row


def test_exit_codes_that_are_documented_are_those_of_the_code() -> None:
    from nova.cli.outcome import EXIT_CODES

    text = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    section = text[text.index("## Exit codes") :]

    assert tuple(int(code) for code in re.findall(r"^\| (\d+) \|", section, flags=re.MULTILINE)) == EXIT_CODES


def test_blocks_that_do_not_run_are_pinned() -> None:
    marked = {(name_of(page), block.no_run) for page in PAGES for block in blocks_of(page) if block.no_run}

    assert marked == NOT_RUN


def test_every_page_with_python_is_found() -> None:
    counts = {name_of(page): sum(block.language == "python" for block in blocks_of(page)) for page in PAGES}

    assert counts["README.md"] >= 7
    assert counts["docs/testing.md"] >= 5


def test_quickstart_of_the_readme_is_short() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    start = text.index("## Quickstart")
    quickstart = re.search(r"```python\n(.*?)```", text[start:], flags=re.DOTALL)

    assert quickstart is not None
    assert len(quickstart[1].splitlines()) < 20


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_toml_blocks_are_configurations(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_PASSWORD", "secret")  # what the pages' ${…} stand for
    for block in blocks_of(page):
        if block.language == "toml":
            TaskQueue.from_config(tomllib.loads(block.text))


@pytest.mark.parametrize("page", LINKING, ids=name_of)
def test_relative_links_and_anchors_resolve(page: Path) -> None:
    broken: list[str] = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose_of(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = unquote(target).partition("#")
        there = (page.parent / path).resolve() if path else page
        if not there.is_relative_to(ROOT) or not there.exists():
            broken.append(f"{target}: no such file")
        elif anchor and anchor not in anchors_of(there):
            broken.append(f"{target}: no such heading")

    assert not broken, f"{name_of(page)}: {broken}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_named_tests_exist(page: Path) -> None:
    missing: list[str] = []
    for path, name in re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", page.read_text(encoding="utf-8")):
        file = ROOT / path
        if not file.exists():
            missing.append(path)
        elif name and name not in functions_of(file):
            missing.append(f"{path}::{name}")

    assert not missing, f"{name_of(page)}: {missing}"


def functions_of(file: Path) -> set[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))}


def test_every_promise_names_its_test() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text[text.index("## Promises") : text.index("## Documentation")]
    rows = [line for line in section.splitlines() if line.startswith("| ")][1:]

    assert len(rows) >= 12
    for row in rows:
        assert re.search(r"`tests/[\w/]+\.py::test_\w+` \|$", row), row


def test_every_option_of_a_queue_is_documented() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")

    for name in nova.__all__:
        if name.startswith("with_"):
            assert re.search(rf"^\| `{name}\(", text, flags=re.MULTILINE), f"{name} has no row in the table of options"


def test_every_option_of_enqueue_is_documented() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    options = [name for name in nova.__all__ if name.islower() and not name.startswith("with_")]

    assert "process_in" in options
    for name in options:
        assert re.search(rf"^\| `{name}` \|", text, flags=re.MULTILINE), f"{name} has no row in the table of options"


def test_options_that_are_documented_exist() -> None:
    for page in PAGES:
        for name in re.findall(r"\bwith_[a-z_]+(?=\()", page.read_text(encoding="utf-8")):
            assert name in nova.__all__, f"{name_of(page)} names {name}(), which does not exist"


def test_every_header_is_documented() -> None:
    text = (ROOT / "docs" / "wire.md").read_text(encoding="utf-8")
    headers = header_names()

    assert "nova-id" in headers
    assert "queue" in headers
    for header in headers:
        assert re.search(rf"^\| `{header}` \|", text, flags=re.MULTILINE), (
            f"{header} has no row in the table of headers"
        )


def test_headers_that_are_documented_exist() -> None:
    for page in PAGES:
        for header in re.findall(r"`(nova-[a-z-]+[a-z])`", page.read_text(encoding="utf-8")):
            assert header in {
                *header_names(),
                *kafka_header_names(),
                *rabbitmq_header_names(),
                *rocketmq_header_names(),
                *thread_names(),
                "nova-taskqueue",
            }


def test_every_header_of_kafka_is_documented() -> None:
    text = (ROOT / "docs" / "wire.md").read_text(encoding="utf-8")

    assert {"nova-hold", "nova-x-due"} <= kafka_header_names()
    for header in kafka_header_names():
        assert re.search(rf"^\| `{header}` \|", text, flags=re.MULTILINE), f"{header} has no row in wire.md"


def test_every_header_of_rabbitmq_is_documented() -> None:
    text = (ROOT / "docs" / "wire.md").read_text(encoding="utf-8")
    section = text[text.index("## On RabbitMQ") :]

    assert {"nova-x-for", "nova-x-count", "nova-x-lease"} <= rabbitmq_header_names()
    for header in rabbitmq_header_names():
        assert re.search(rf"^\| `{header}` \|", section, flags=re.MULTILINE), f"{header} has no row in wire.md"


def rabbitmq_header_names() -> set[str]:
    """The headers of the RabbitMQ driver's own."""
    from nova.brokers.rabbitmq import leases, messages

    found = {**vars(messages), **vars(leases)}
    return {
        value
        for name, value in found.items()
        if name.isupper() and isinstance(value, str) and value.startswith("nova-x-") and value != "nova-x-"
    }


def test_every_option_of_rabbitmq_is_documented() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    section = text[text.index("### RabbitMQ") :]

    for name in inspect.signature(nova.with_rabbitmq).parameters:
        assert re.search(rf"^\| [^|]*`{name}`[^|]* \|", section, flags=re.MULTILINE), f"{name} has no row in the table"


def test_every_header_of_rocketmq_is_documented() -> None:
    text = (ROOT / "docs" / "wire.md").read_text(encoding="utf-8")
    section = text[text.index("## On RocketMQ") :]

    assert {"nova-x-for", "nova-x-more", "nova-x-removed"} <= rocketmq_header_names()
    for header in rocketmq_header_names():
        assert re.search(rf"^\| `{header}` \|", section, flags=re.MULTILINE), f"{header} has no row in wire.md"


def rocketmq_header_names() -> set[str]:
    """The headers of the RocketMQ driver's own."""
    from nova.brokers.rocketmq import dead, messages

    found = {**vars(messages), **vars(dead)}
    return {
        value
        for name, value in found.items()
        if name.isupper() and isinstance(value, str) and value.startswith("nova-x-") and value != "nova-x-"
    }


def test_every_option_of_rocketmq_is_documented() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    section = text[text.index("### RocketMQ") :]

    for name in inspect.signature(nova.with_rocketmq).parameters:
        assert re.search(rf"^\| [^|]*`{name}`[^|]* \|", section, flags=re.MULTILINE), f"{name} has no row in the table"


def kafka_header_names() -> set[str]:
    """The headers of the Kafka driver's own."""
    from nova.brokers.kafka import records

    return {
        value
        for name, value in vars(records).items()
        if name.isupper() and isinstance(value, str) and value.startswith("nova") and value not in header_names()
    }


def thread_names() -> set[str]:
    """The names of Nova's threads that are written out in its source."""
    return {
        found
        for file in (ROOT / "nova").rglob("*.py")
        for found in re.findall(
            r'(?:name=|DueQueue(?:\[\w+\])?\(\s*)"(nova-[a-z-]+)"', file.read_text(encoding="utf-8")
        )
    }


def test_every_option_of_kafka_is_documented() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    section = text[text.index("### Kafka") :]

    for name in inspect.signature(nova.with_kafka).parameters:
        assert re.search(rf"^\| `{name}` \|", section, flags=re.MULTILINE), f"{name} has no row in the table of options"


def header_names() -> set[str]:
    """The values of the constants above `WIRE_VERSION`."""
    constants = list(vars(envelope).items())
    names = [name for name, _ in constants]
    return {str(value) for name, value in constants[: names.index("WIRE_VERSION")] if name.isupper()}
