"""Whether the wheel works where users install it: each extra alone, other versions of Python, the oldest libraries.

    python benchmarks/release/check.py                    everything; writes release.json and release.md
    python benchmarks/release/check.py --only oldest      environments whose name holds the word; the others are kept

For each environment a new virtual one is made below build/release, the wheel of the work tree is installed with one
extra, and a guarded call is made (programs.py): a mistake is found, its healthy twin is not. Where the oldest libraries
are installed, tests run too. The environment is deleted afterwards. torch comes first and by exact version: a plain
"torch" would be the newest. Everything together downloads about 15 GB and takes half an hour.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
WORK = ROOT / "build" / f"release-{os.getpid()}"
JSON, PAGE = HERE / "release.json", HERE / "release.md"

TORCH = next(line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("torch=="))
SHOWN = ("torch", "transformers", "accelerate", "jax", "optax", "wandb", "numpy", "pydantic", "safetensors")
OLDEST = {
    "core": ["numpy==1.26.0", "array-api-compat==1.12", "pydantic==2.9.0", "pydantic-settings==2.7.0", "rich==13.7.0",
             "safetensors==0.4.3", "typer==0.16.0"],
    "hf": ["torch==2.6.0", "transformers==5.0.0", "accelerate==1.3.0"],
    "jax": ["jax==0.10.0", "jaxlib==0.10.0", "optax==0.2.8"],
    "wandb": ["wandb==0.19.0"],
}  # fmt: skip
TESTED = {
    "core": ["tests/test_verdict.py", "tests/test_reporter.py", "tests/test_settings.py"],
    "hf": [
        "tests/integrations/test_torch_loop.py",
        "tests/integrations/test_torch_seam.py",
        "tests/integrations/test_hf_trainer.py",
    ],
    "jax": ["tests/integrations/test_jax_fallbacks.py", "tests/integrations/test_jax_optax.py"],
}
TOOLS = ["pytest", "pytest-timeout", "hypothesis"]


@dataclass(frozen=True)
class Environment:
    """What is installed and run."""

    name: str
    python: str
    extra: str
    first: list[str] = field(default_factory=list)
    pins: list[str] = field(default_factory=list)
    constrained: bool = True
    programs: tuple[str, ...] = ()
    tests: list[str] = field(default_factory=list)


def environments() -> list[Environment]:
    found = []
    for extra in ("core", "torch", "hf", "jax", "wandb"):
        first = [TORCH] if extra in ("torch", "hf") else []
        found.append(Environment(f"{extra}, newest, 3.11", "3.11", extra, first, programs=(extra,)))
    for python in ("3.12", "3.13"):
        for extra in ("core", "hf", "jax", "wandb"):
            programs = ("torch", "hf") if extra == "hf" else (extra,)
            first = [TORCH] if extra == "hf" else []
            found.append(Environment(f"{extra}, newest, {python}", python, extra, first, programs=programs))
    for extra, pins in OLDEST.items():
        first = [pin for pin in pins if pin.startswith("torch")]
        programs = ("torch", "hf") if extra == "hf" else (extra,)
        name = f"{extra}, oldest, 3.11"
        found.append(Environment(name, "3.11", extra, first, pins, False, programs, TESTED.get(extra, [])))
    return found


def interpreter(version: str) -> str | None:
    """The path of an interpreter of that version, or None."""
    name = f"python{version}"
    pyenv = sorted(Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")).glob(f"versions/{version}.*/bin/{name}"))
    for candidate in [*map(str, pyenv), shutil.which(name)]:
        if candidate and subprocess.run([candidate, "-V"], check=False, capture_output=True).returncode == 0:
            return candidate
    return None


def run(*command: str | Path, cwd: Path = ROOT, timeout: float = 1800) -> tuple[int, str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "CTCGUARD_"))}
    environment |= {
        "HF_HUB_OFFLINE": "1", "JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1", "WANDB_SILENT": "true",
        "CUDA_VISIBLE_DEVICES": "",
    }  # fmt: skip
    try:
        done = subprocess.run(
            [str(part) for part in command], cwd=cwd, env=environment, check=False, timeout=timeout,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return 124, f"not done within {timeout:g} s"
    return done.returncode, done.stdout


def wheel() -> Path:
    """Built from the work tree."""
    shutil.rmtree(WORK / "dist", ignore_errors=True)
    code, said = run(sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", WORK / "dist", ROOT)
    if code:
        raise SystemExit(said)
    return next((WORK / "dist").glob("*.whl"))


def tried(environment: Environment, built: Path) -> dict[str, Any]:
    """Install, call, test; what came of it."""
    started = time.monotonic()
    result: dict[str, Any] = {"name": environment.name, "asked": environment.pins, "installs": "no"}
    python = interpreter(environment.python)
    if python is None:
        return result | {"installs": f"no interpreter of Python {environment.python} here"}
    folder = WORK / "venv"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        code, said = run(python, "-m", "venv", folder)
        own = folder / "bin" / "python"
        pip = (own, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--prefer-binary")
        bound = ("--constraint", ROOT / "constraints.txt") if environment.constrained else ()
        target = str(built) if environment.extra == "core" else f"{built}[{environment.extra}]"
        for step in ([environment.first] if environment.first else []) + [[target, *environment.pins]]:
            code, said = (code, said) if code else run(*pip, *bound, *step)
        if code:
            return result | {"installs": _last(said)}
        result |= {"installs": "yes", "versions": versions(own)}
        empty = WORK / "empty"
        for program in environment.programs:
            shutil.rmtree(empty, ignore_errors=True)
            empty.mkdir(parents=True)
            code, said = run(own, HERE / "programs.py", program, cwd=empty, timeout=300)
            result.setdefault("calls", {})[program] = _last(said) if code == 0 else f"failed: {_last(said)}"
        if environment.tests:
            result["tests"] = tests(environment, own, pip)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return result | {"seconds": round(time.monotonic() - started)}


def tests(environment: Environment, python: Path, pip: tuple[Any, ...]) -> str:
    """The last line of pytest, on a copy of the tests, so that it is the installed package that they import."""
    code, said = run(*pip, *TOOLS)
    if code:
        return f"no pytest: {_last(said)}"
    copy = WORK / "tests"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(ROOT / "tests", copy / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    options = "[pytest]\naddopts = --import-mode=importlib -p no:cacheprovider\npythonpath = .\nmarkers =\n"
    (copy / "pytest.ini").write_text(options + "    may_skip(reason): x\n    gpu: x\n    wheel: x\n")
    code, said = run(python, "-m", "pytest", "-q", *environment.tests, cwd=copy, timeout=900)
    failed = [line[:200] for line in said.splitlines() if line.startswith(("FAILED", "ERROR", "E   "))]
    return "; ".join([_last(said).strip("= "), *failed[:5]])


def versions(python: Path) -> dict[str, str]:
    """Of what is installed and matters."""
    code = (
        "import importlib.metadata as m, json, sys\n"
        "found = {d.metadata['Name'].lower(): d.version for d in m.distributions()}\n"
        f"print(json.dumps({{'python': sys.version.split()[0], **{{n: found[n] for n in {SHOWN} if n in found}}}}))"
    )
    status, said = run(python, "-c", code)
    found: dict[str, str] = json.loads(said.splitlines()[-1]) if status == 0 else {}
    return found


def _last(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""


HEAD = """\
# Where the wheel was installed and run

Written by `python benchmarks/release/check.py`: a new virtual environment for each row, the wheel with that extra
alone, and one guarded call, in which a mistake must be found and its healthy twin must not. Where the libraries are the
oldest that pyproject.toml allows, a part of the tests runs too.

| extra, libraries, Python | installs | with | guarded call | tests |
|---|---|---|---|---|
"""


def page(results: list[dict[str, Any]]) -> str:
    """The table."""
    lines = [HEAD.rstrip("\n")]
    for result in results:
        shown = ", ".join(f"{name} {version}" for name, version in result.get("versions", {}).items())
        calls = "; ".join(f"{name}: {said}" for name, said in result.get("calls", {}).items())
        lines.append(f"| {result['name']} | {result['installs']} | {shown} | {calls} | {result.get('tests', '')} |")
    return "\n".join(lines) + "\n"


def written(result: dict[str, Any]) -> None:
    """Put a result into the file and the page, which another run of this command may be writing too."""
    known = {each["name"]: each for each in json.loads(JSON.read_text())["environments"]} if JSON.exists() else {}
    known[result["name"]] = result
    results = [known[each.name] for each in environments() if each.name in known]
    JSON.write_text(json.dumps({"environments": results}, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(page(results), encoding="utf-8")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--only", default="", help="environments whose name holds this")
    chosen = options.parse_args().only
    built = wheel()
    try:
        for environment in environments():
            if chosen in environment.name:
                result = tried(environment, built)
                print(json.dumps(result), flush=True)
                written(result)
    finally:
        shutil.rmtree(WORK, ignore_errors=True)


if __name__ == "__main__":
    main()
