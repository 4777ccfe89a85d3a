"""The public forge's workflow is well formed, and calls what a contributor calls."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PACKAGES = "apt-get update && apt-get install "
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def commands_of(workflow: Any) -> list[str]:
    return [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_the_forge_will_read_it(path: Path) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_it_runs_make_targets_and_nothing_else_once_packages_are_there(path: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):.*?## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    commands = commands_of(yaml.safe_load(path.read_text(encoding="utf-8")))
    assert commands
    for command in commands:
        if command != ".ci/run" and not command.startswith(PACKAGES):
            program, *words = re.sub(r"\S+=\S*\$\{\{.*?\}\}", "", command).split()
            assert program == "make", command
            assert set(words) <= targets


def test_the_workflow_runs_all_that_ci_runs() -> None:
    (path,) = WORKFLOWS
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert ".ci/run" in [step.get("run") for step in workflow["jobs"]["check"]["steps"]]
    assert set(workflow["jobs"]["release"]["needs"]) == {"check", "pythons"}


def test_all_that_ci_runs_is_run_by_root_who_may_install_rabbitmq() -> None:
    """The forge's runners are another user outside of a container, and a server that is missing fails where `CI` is set."""
    (path,) = WORKFLOWS
    check = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]["check"]
    assert check["container"].startswith("python:3.11-"), "with git, make, openssl and apt-get in it"
    (packages,) = [step["run"] for step in check["steps"] if step.get("run", "").startswith(PACKAGES)]
    assert "maven" in packages, "Kafka and RocketMQ come with it, and Java with maven"
