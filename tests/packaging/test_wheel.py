"""What is published: wheel and sdist hold what they should, and each extra brings all that it promises.

Every extra is installed from the wheel into a clean environment of its own; what runs there never sees this checkout.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("packaging")]

RUNS_A_TASK = """
import threading
import nova
from nova import Task, TaskQueue, with_memory, with_message_format
queue = TaskQueue(with_memory(), with_message_format({format!r}))
done = threading.Event()
queue.start(lambda task: done.set())
queue.enqueue(Task("mail.send", {{"to": "a@b.c"}}))
assert done.wait(30), "the task did not run"
queue.stop()
assert "site-packages" in nova.__file__, nova.__file__
"""
REACHES_THE_NETWORK = """
from nova import BrokerUnavailable, Task, TaskQueue, {option}
try:
    TaskQueue({option}({address!r})).enqueue(Task("mail.send", {{}}))
except BrokerUnavailable as exc:
    assert "127.0.0.1" in str(exc), exc
else:
    raise SystemExit("nothing listens there")
"""
IS_MISSING = """
from nova import ConfigError, Task, TaskQueue, {option}
try:
    TaskQueue({option}({value!r})).enqueue(Task("mail.send", {{}}))
except ConfigError as exc:
    assert "pip install 'nova-taskqueue[{extra}]'" in str(exc), exc
else:
    raise SystemExit("it needs a package that is not there")
"""
BROKERS = {
    "kafka": ("with_kafka", "127.0.0.1:1"),
    "rabbitmq": ("with_rabbitmq", "amqp://guest:guest@127.0.0.1:1/"),
    "rocketmq": ("with_rocketmq", "127.0.0.1:1"),
}
FORMATS = ("orjson", "protobuf")
OTHERS = {
    "cli": "import sys; sys.argv = ['nova', '--help']; from nova.cli.main import main; assert main() == 0",
    "clickhouse": "import clickhouse_connect",
    "reload": (
        "from pathlib import Path; from nova.cli.reload import changes_of\n"
        "with changes_of(Path('.')) as changed: assert not changed()"
    ),
}
EXTRAS = (*BROKERS, *FORMATS, *OTHERS, "demo", "all")


def works(extra: str) -> str:
    """What must run where the extra is installed."""
    if extra in BROKERS:
        option, address = BROKERS[extra]
        return REACHES_THE_NETWORK.format(option=option, address=address)
    if extra in FORMATS:
        return RUNS_A_TASK.format(format=extra)
    if extra == "demo":
        return "import chdb, clickhouse_connect, rich"
    if extra == "all":
        return "\n".join(works(one) for one in (*BROKERS, *FORMATS, *OTHERS))
    return OTHERS[extra]


def fails_clearly(extra: str) -> str | None:
    """What must end in one error with the install line where the extra is not installed."""
    if extra in BROKERS:
        option, address = BROKERS[extra]
        return IS_MISSING.format(option=option, value=address, extra=extra)
    if extra in FORMATS:
        return IS_MISSING.format(option="with_message_format", value=extra, extra=extra)
    return None


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist of this checkout, and the wheel built from that sdist."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", str(folder), str(ROOT))
    return folder


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    (found,) = dist.glob("*.whl")
    return found


def run(*command: str, cwd: Path | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{' '.join(command[:4])}…\n{done.stdout}\n{done.stderr}"
    return done.stdout


def clean_environment(folder: Path, requirement: str) -> str:
    """The Python of a new environment with nothing but this in it."""
    run(sys.executable, "-m", "venv", "--without-pip", str(folder))
    python = str(folder / "bin" / "python")
    run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", requirement)
    return python


def test_every_extra_is_tried() -> None:
    assert set(PROJECT["optional-dependencies"]) == set(EXTRAS)


def test_the_registry_will_take_both(dist: Path) -> None:
    files = sorted(map(str, dist.iterdir()))
    assert len(files) == 2
    assert run(sys.executable, "-m", "twine", "check", "--strict", *files).count("PASSED") == 2


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {"nova/py.typed", "nova/codecs/_pb/envelope_pb2.pyi"} <= set(names)
    assert {name.split("/")[0] for name in names} == {"nova", f"nova_taskqueue-{PROJECT['version']}.dist-info"}
    committed = {str(path.relative_to(ROOT)) for path in (ROOT / "nova").rglob("*.py")}
    assert {name for name in names if name.endswith(".py")} == committed


def test_the_sdist_holds_all_that_its_tests_need(dist: Path) -> None:
    (archive,) = dist.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    assert {"pyproject.toml", "Makefile", "LICENSE", "README.md", "tests/conftest.py", "docs/concepts.md"} <= names
    assert {str(path.relative_to(ROOT)) for path in (ROOT / ".github").rglob("*.yml")} <= names
    assert not [name for name in names if "__pycache__" in name or name.startswith((".venv", "build/", "dist/"))]


def test_without_extras_it_runs_and_says_what_is_missing(wheel: Path, tmp_path: Path) -> None:
    python = clean_environment(tmp_path / "env", str(wheel))
    run(python, "-I", "-c", RUNS_A_TASK.format(format="json"), cwd=tmp_path)
    for extra in EXTRAS:
        program = fails_clearly(extra)
        if program is not None:
            run(python, "-I", "-c", program, cwd=tmp_path)
    missing = subprocess.run([tmp_path / "env" / "bin" / "nova"], capture_output=True, text=True, timeout=60)
    assert missing.returncode == 2
    assert missing.stderr.strip().endswith("is missing; pip install 'nova-taskqueue[cli]'")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("extra", EXTRAS)
def test_an_extra_brings_all_that_it_needs(wheel: Path, tmp_path: Path, extra: str) -> None:
    python = clean_environment(tmp_path / "env", f"{wheel}[{extra}]")
    run(python, "-I", "-c", works(extra), cwd=tmp_path)
