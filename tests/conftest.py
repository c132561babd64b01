"""Every test runs in an empty folder, offline, with no settings of the person who runs it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import hypothesis.configuration
import pytest

ROOT = Path(__file__).parent.parent
IN_CI = os.environ.get("CI", "").lower() in {"1", "true"}

# Set once, before any framework is imported, so that child processes inherit it too.
PERSONAL = ("CTCGUARD_", "WANDB_", "FORCE_COLOR", "NO_COLOR", "COLUMNS", "LINES", "GITHUB_ACTIONS")
for name in [name for name in os.environ if name.startswith(PERSONAL)]:
    del os.environ[name]
os.environ |= {
    "WANDB_MODE": "disabled",  # a test that wants a run asks for mode="offline"
    "WANDB_SILENT": "true",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
    "JAX_PLATFORMS": "cpu",
    "OMP_NUM_THREADS": "1",  # the arrays are tiny, and there may be a second worker
}

# A shell starts jobs in the background deaf to interrupts, and their children are, too; some are interrupted in tests.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Programs are compiled for one run on a few numbers each: ten times faster without the compiler's efforts. In a process
# with several devices (test_jax_matrix.py) whoever starts it chooses.
QUICK = (
    "xla_llvm_disable_expensive_passes=true",
    "xla_backend_optimization_level=0",
    "xla_cpu_use_fusion_emitters=false",
    "xla_cpu_parallel_codegen_split_count=1",
)
if "JAX_NUM_CPU_DEVICES" not in os.environ:
    os.environ["XLA_FLAGS"] = " ".join(f"--{flag}" for flag in QUICK)

hypothesis.configuration.set_hypothesis_home_dir(ROOT / ".hypothesis")
hypothesis.settings.register_profile("ctcguard", deadline=None, derandomize=IN_CI)
hypothesis.settings.register_profile("thorough", deadline=None, max_examples=4000)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ctcguard"))


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """The search for examples in docstrings imports what it finds: not the scripts that tests run, and not helpers."""
    return True if collection_path.suffix == ".py" and not collection_path.name.startswith("test_") else None


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run directories land in ``tmp_path``, and no pyproject.toml with settings is near."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def _torch_is_left_as_it_was() -> Iterator[None]:
    """A guard that outlives its test would watch the next one."""
    torch = sys.modules.get("torch")
    before = getattr(torch, "ctc_loss", None)
    yield
    if torch is not None and torch.ctc_loss is not before:
        torch.ctc_loss = before
        pytest.fail("torch.ctc_loss is still replaced: a guard was not closed")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    if item.get_closest_marker("may_skip") is None and not hasattr(report, "wasxfail"):
        _no_skip_in_ci(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Iterator[None]:
    report = yield
    _no_skip_in_ci(report)
    return report


def _no_skip_in_ci(report: pytest.TestReport | pytest.CollectReport) -> None:
    if IN_CI and report.skipped:
        report.outcome = "failed"
        report.longrepr = f"a skip is a failure in CI, without the marker may_skip(reason): {report.longrepr}"
