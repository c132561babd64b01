"""The interpreters in which the tools run: this one for ctcguard, one of their own for the others."""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

from benchmarks.detection.tools._tool import Tool

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
CPU_WHEELS = "https://download.pytorch.org/whl/cpu"
PACKAGES = ("torch", "transformers", "jax", "optax", "flax", "lightning", "torch-audit", "traincheck")
QUIET = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "POLARS_MAX_THREADS": "1",
    "PYTHONHASHSEED": "0",
    "JAX_PLATFORMS": "cpu",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "WANDB_MODE": "disabled",
    "TQDM_DISABLE": "1",
}
"""One thread, no network, no progress bars; hashes of texts are the same in every run."""


def interpreter(tool: type[Tool], folder: Path) -> tuple[Path, dict[str, str]]:
    """What runs a tool, and the versions of what is installed there.

    Parameters
    ----------
    tool : type of Tool
        The tool.
    folder : Path
        Where the environment of the peers is, or is made if it is not there.
    """
    if tool.own:
        return Path(sys.executable), versions(Path(sys.executable), ("ctcguard",))
    python = peers(folder)
    return python, versions(python, PACKAGES)


def versions(python: Path, packages: Sequence[str]) -> dict[str, str]:
    """Of what is installed there."""
    code = "import json, sys, importlib.metadata as m; print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"
    printed = subprocess.run([python, "-c", code, *packages], stdout=subprocess.PIPE, text=True, check=True).stdout
    found: dict[str, str] = json.loads(printed)
    return {name: version.partition("+")[0] for name, version in found.items()}


def peers(folder: Path) -> Path:
    """The interpreter of the peers; their environment is made if it is not there."""
    python = folder / "bin" / "python"
    if python.exists():
        return python
    venv.create(folder, with_pip=True)
    torch = next(line for line in REQUIREMENTS.read_text().splitlines() if line.startswith("torch=="))
    # The CPU build first, as the Makefile does it: a plain "torch" brings gigabytes of CUDA on Linux.
    for wanted in ([f"{torch}+cpu"], [f"{torch}+cpu", "--extra-index-url", CPU_WHEELS], [torch]):
        if not subprocess.run([python, "-m", "pip", "install", "-qq", *wanted], check=False).returncode:
            break
    subprocess.run([python, "-m", "pip", "install", "-qq", "-r", REQUIREMENTS], check=True)
    return python
