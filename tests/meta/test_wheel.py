"""Promise: what is published holds both packages and nothing else, and works with the core dependencies alone."""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from collections.abc import Iterable
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {"ctcguard": ROOT / "ctcguard", "ctcguard_integrations": ROOT / "integrations" / "ctcguard_integrations"}


def sources() -> set[str]:
    """What a wheel has to hold, read off the work tree."""
    return {
        f"{package}/{file.relative_to(folder).as_posix()}"
        for package, folder in PACKAGES.items()
        for file in folder.rglob("*")
        if file.suffix in {".py", ".j2", ".css", ".js"} or file.name == "py.typed"
    }


def complaints(names: Iterable[str]) -> list[str]:
    """What is wrong with the names in a wheel."""
    held = {name for name in names if ".dist-info/" not in name and not name.endswith("/")}
    wrong = [f"missing: {name}" for name in sources() - held]
    wrong += [f"not meant for users: {name}" for name in held - sources()]
    return sorted(wrong)


def output(*command: str | Path) -> str:
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the source distribution, so that this one is known to be complete."""
    folder = tmp_path_factory.mktemp("dist")
    output(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def user(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a new environment that holds the wheel with its core dependencies."""
    folder = tmp_path_factory.mktemp("user")
    venv.create(folder, with_pip=True)
    programs = folder / "bin"
    output(programs / "python", "-m", "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt", wheel)
    return programs


@pytest.mark.wheel
def test_wheel_holds_the_packages_and_nothing_else(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        assert complaints(archive.namelist()) == []


@pytest.mark.wheel
def test_wheel_carries_licence_and_command(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        texts = {Path(name).name: archive.read(name).decode() for name in archive.namelist() if ".dist-info/" in name}
    assert texts["LICENSE"] == (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "ctcguard = ctcguard.cli:main" in texts["entry_points.txt"]


@pytest.mark.wheel
@pytest.mark.timeout(300)
def test_installed_wheel_imports_and_is_consistent(user: Path) -> None:
    output(user / "python", "-c", "import ctcguard")
    assert "No broken requirements" in output(user / "python", "-m", "pip", "check")


@pytest.mark.wheel
@pytest.mark.timeout(300)
def test_installed_command_lists_the_rules(user: Path) -> None:
    rules = json.loads(output(user / "ctcguard", "rules", "--json"))
    assert {"CTC101", "CTC301", "CTC402", "CTC501"} <= {rule["code"] for rule in rules}


@pytest.mark.wheel
@pytest.mark.timeout(300)
def test_missing_extra_is_one_clear_line(user: Path) -> None:
    run = subprocess.run(
        [user / "python", "-c", "from ctcguard import watch"], capture_output=True, text=True, check=False
    )
    assert run.returncode == 1
    assert run.stderr.splitlines()[-1].endswith("pip install 'ctcguard[torch]'")


@pytest.mark.wheel
@pytest.mark.timeout(300)
def test_a_report_without_its_extra_is_one_clear_line(user: Path) -> None:
    run = subprocess.run([user / "ctcguard", "report", "."], capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert run.stderr == "ctcguard: the report needs jinja2, plotly: pip install 'ctcguard[report]'\n"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the run directories of three runs that went wrong, each in its framework."""
    folder = tmp_path_factory.mktemp("runs")
    script = ROOT / "tests" / "scripts" / "leave_records.py"
    run = subprocess.run([sys.executable, script], cwd=folder, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return folder


@pytest.mark.wheel
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("framework", "verdict"),
    [("torch", "CTC402 probabilities"), ("hf", "CTC301 most-of-the-batch"), ("jax", "CTC404 softmax-before-loss")],
)
def test_installed_command_replays_a_record(user: Path, runs: Path, framework: str, verdict: str) -> None:
    lines = [json.loads(line) for line in (runs / framework / "findings.jsonl").read_text("utf-8").splitlines()]
    assert [f"{line['code']} {line['cause']}" for line in lines if line["type"] == "verdict"] == [verdict]
    (record,) = (runs / framework).glob("*.safetensors")
    run = subprocess.run([user / "ctcguard", "replay", record], capture_output=True, text=True, check=False)
    assert run.returncode == 3, run.stdout + run.stderr
    assert verdict.partition(" ")[0] in run.stdout
    assert "the verdict is that of the run" in run.stdout
    assert "not run again" not in run.stdout
    assert "utterance 1" in run.stdout


def test_the_check_finds_a_missing_marker() -> None:
    assert complaints(sources() - {"ctcguard/py.typed"}) == ["missing: ctcguard/py.typed"]


@pytest.mark.parametrize("stray", ["tests/test_call.py", "benchmarks/overhead.py", "ctcguard/rules/ruff.toml"])
def test_the_check_finds_a_stray_file(stray: str) -> None:
    assert complaints({*sources(), stray}) == [f"not meant for users: {stray}"]
