"""A guarded step where JAX does not show what it is made of, how often it is traced, and what is said at exit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ctcguard import CTCVerdictError, guard_step
from ctcguard_integrations import jax_rebuild

RIGHT, WRONG = np.asarray([[1, 2, 3]]), np.asarray([[1, 2, 9]])


def update(logits: jax.Array, labels: Any) -> jax.Array:
    def loss(x: jax.Array) -> jax.Array:
        return optax.ctc_loss(x, jnp.zeros(x.shape[:2]), labels, jnp.zeros(labels.shape)).mean()

    return logits - 0.1 * jax.grad(loss)(logits)


class Opaque:
    """A compiled step that lets nobody look into it, as another version of JAX might."""

    def __init__(self, step: Callable[..., Any]) -> None:
        self._step = step
        self.__wrapped__ = step.__wrapped__  # type: ignore[attr-defined]

    def __call__(self, *args: Any) -> Any:
        return self._step(*args)


def without_options(function: Any) -> dict[str, Any]:
    """What is found in a closure that is made differently."""
    return {}


@pytest.mark.parametrize("kind", ["jit", "pmap"])
def test_what_cannot_be_rebuilt_reports_by_callback(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if kind == "jit":
        step, lead = Opaque(jax.jit(update)), ()
    else:
        monkeypatch.setattr(jax_rebuild, "_variables", without_options)
        step, lead = jax.pmap(update), (1,)
    guarded = guard_step(step, sinks=())
    start = jnp.zeros((*lead, 1, 12, 5))
    own = step(start, RIGHT.reshape(*lead, 1, 3))
    assert (guarded(start, RIGHT.reshape(*lead, 1, 3)) == own).all()
    assert guarded.guard.end_record()["routes"] == {"auxiliary": 0, "callback": 1, "direct": 0}
    assert guarded.findings == []
    with pytest.raises(CTCVerdictError, match="CTC201"):
        guarded(start, WRONG.reshape(*lead, 1, 3))
    guarded.close()


def test_it_is_traced_once_for_each_shape() -> None:
    traces: list[tuple[int, ...]] = []

    @jax.jit
    def step(logits: jax.Array, labels: Any) -> jax.Array:
        traces.append(logits.shape)
        return update(logits, labels)

    guarded = guard_step(step, sinks=())
    for frames in (12, 12, 14, 12, 14, 14):
        guarded(jnp.zeros((1, frames, 5)), RIGHT)
    guarded.close()
    assert traces == [(1, 12, 5), (1, 14, 5)]


def test_the_last_step_is_judged_when_the_program_ends(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(
        "import jax, jax.numpy as jnp, numpy as np, optax, ctcguard\n"
        "loss = lambda x, y: optax.ctc_loss(x, jnp.zeros(x.shape[:2]), y, jnp.zeros(y.shape)).mean()\n"
        "step = ctcguard.guard_step(jax.jit(jax.grad(loss)), on_error='log', run_dir='run')\n"
        "for label in (1, 2, 9):\n"
        "    step(jnp.zeros((1, 12, 5)), np.asarray([[1, 3, label]]))\n"
    )
    subprocess.run([sys.executable, str(script)], check=True, cwd=tmp_path, env=os.environ.copy())
    lines = [json.loads(line) for line in (tmp_path / "run" / "findings.jsonl").read_text().splitlines()]
    assert [(line["code"], line["step"]) for line in lines if line["type"] == "verdict"] == [("CTC201", 2)]
    assert (lines[-1]["type"], lines[-1]["steps"]) == ("end", 3)
