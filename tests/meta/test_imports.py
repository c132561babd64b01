"""Promise: ctcguard is light to import, and imports go one way."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CORE = ROOT / "ctcguard"
FRAMEWORKS = frozenset({"accelerate", "flax", "jax", "keras", "optax", "tensorflow", "torch", "transformers", "wandb"})
LIMIT_S = 0.3

IMPORT = """
import importlib, json, sys, time
start = time.perf_counter()
for name in {modules!r}:
    importlib.import_module(name)
print(json.dumps([time.perf_counter() - start, sorted({{name.partition(".")[0] for name in sys.modules}})]))
"""


def imported(*modules: str) -> tuple[float, set[str]]:
    """Seconds that the imports take in a new process, and the top-level names that are loaded afterwards."""
    command = [sys.executable, "-c", IMPORT.format(modules=modules)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    seconds, names = json.loads(run.stdout)
    return seconds, set(names)


def module_name(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def module_level(tree: ast.AST) -> Iterator[str]:
    """Full names that run-time code outside functions imports: ``from a import b`` gives both ``a`` and ``a.b``."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and not is_type_checking(node):
            yield from module_level(node)


def foreign(source: str) -> set[str]:
    """Frameworks and integrations that a source text imports at module level."""
    return {name.partition(".")[0] for name in module_level(ast.parse(source))} & {*FRAMEWORKS, "ctcguard_integrations"}


def import_graph(sources: dict[str, str]) -> dict[str, set[str]]:
    """Which of the modules each of them imports at module level."""
    graph = {name: set(module_level(ast.parse(source))) & sources.keys() for name, source in sources.items()}
    return {name: imports - {name} for name, imports in graph.items()}


def core_sources() -> dict[str, str]:
    return {module_name(file): file.read_text(encoding="utf-8") for file in sorted(CORE.rglob("*.py"))}


def light_modules() -> list[str]:
    """All modules but the cases of the demo, which are users' programs and import frameworks as these do."""
    return [name for name in core_sources() if not name.startswith("ctcguard.demo.")]


def test_import_is_fast_and_loads_no_framework() -> None:
    runs = [imported("ctcguard") for _ in range(3)]
    assert not runs[0][1] & FRAMEWORKS
    assert min(seconds for seconds, _ in runs) < LIMIT_S


def test_the_whole_core_loads_no_framework() -> None:
    _, names = imported(*(name for name in light_modules() if name != "ctcguard.__main__"))
    assert not names & {*FRAMEWORKS, "ctcguard_integrations"}


def test_the_check_finds_a_framework_that_is_loaded() -> None:
    _, names = imported("ctcguard_integrations.torch_loop")
    assert "torch" in names & FRAMEWORKS


@pytest.mark.parametrize("module", light_modules())
def test_core_module_imports_no_framework(module: str) -> None:
    assert foreign(core_sources()[module]) == set()


@pytest.mark.parametrize(
    "source",
    [
        "import torch.nn as nn",
        "from jax import numpy",
        "try:\n    import wandb\nexcept ImportError:\n    wandb = None",
        "class A:\n    from ctcguard_integrations import torch_loop",
    ],
)
def test_the_walk_finds_a_foreign_import(source: str) -> None:
    assert len(foreign(source)) == 1


def test_the_walk_lets_lazy_imports_be() -> None:
    assert foreign("if TYPE_CHECKING:\n    import torch\ndef f():\n    import torch") == set()


def test_core_has_no_import_cycle() -> None:
    TopologicalSorter(import_graph(core_sources())).prepare()


def test_an_import_cycle_is_found() -> None:
    sources = {"a": "import b", "b": "from c import x", "c": "import a"}
    with pytest.raises(CycleError):
        TopologicalSorter(import_graph(sources)).prepare()


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("ctcguard/guard.py", "import torch"),
        ("ctcguard/guard.py", "import ctcguard_integrations.torch_loop"),
        ("ctcguard/guard.py", "import array_api_compat"),
        ("ctcguard/cli.py", "def run():\n    import ctcguard_integrations.torch_loop"),
        ("ctcguard/__init__.py", "import torch"),
        ("ctcguard/cli.py", "from ctcguard.demo import run_demo"),
        ("ctcguard/demo/__init__.py", "import torch"),
        ("ctcguard/probes/anything.py", "import numpy as np"),
        ("ctcguard/probes/anything.py", "from ctcguard import rules"),
        ("ctcguard/probes/anything.py", "from ctcguard.finding import Finding"),
        ("ctcguard/rules/loss/anything.py", "from ctcguard.probes.loss import losses"),
        ("ctcguard/rules/loss/anything.py", "import torch"),
        ("ctcguard/rules/loss/anything.py", "from ctcguard.guard import Guard"),
        ("ctcguard/sinks/anything.py", "from ctcguard.guard import Guard"),
        ("ctcguard/sinks/anything.py", "import wandb"),
        ("integrations/ctcguard_integrations/anything.py", "from ctcguard.rules import ALL"),
    ],
)
def test_lint_stops_an_import_against_the_direction(path: str, line: str) -> None:
    assert lint(path, line).returncode == 1


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("ctcguard/guard.py", "from ctcguard.rules import ALL"),
        ("ctcguard/cli.py", "def run():\n    from ctcguard import watch"),
        ("ctcguard/cli.py", "def demo():\n    from ctcguard.demo import run_demo"),
        ("ctcguard/demo/anything.py", "import torch"),
        ("ctcguard/rules/loss/anything.py", "from ctcguard.finding import Finding"),
        ("integrations/ctcguard_integrations/anything.py", "import torch"),
    ],
)
def test_lint_lets_the_others_through(path: str, line: str) -> None:
    assert lint(path, line).returncode == 0


def lint(path: str, source: str) -> subprocess.CompletedProcess[str]:
    """Ruff's import rules on a text, as if it stood in that file."""
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "--select=TID", f"--stdin-filename={path}", "-"]
    return subprocess.run(command, input=source + "\n", cwd=ROOT, capture_output=True, text=True, check=False)
