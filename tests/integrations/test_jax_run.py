"""``ctcguard run`` on unchanged JAX scripts, whatever they import and how."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.plain import printed

FINDINGS = Path("findings.jsonl")


class Outcome(NamedTuple):
    """What a process leaves."""

    code: int
    out: str
    err: str


def outcome(*command: str, devices: int = 1) -> Outcome:
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": str(devices)}
    program = [sys.executable, *command]
    done = subprocess.run(program, check=False, capture_output=True, text=True, timeout=200, env=environment)
    return Outcome(done.returncode, done.stdout, done.stderr)


def guarded(*command: str, devices: int = 1) -> Outcome:
    return outcome("-m", "ctcguard", "run", "--findings", str(FINDINGS), *command, devices=devices)


def records(kind: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in FINDINGS.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line["type"] == kind]


HEAD = """
import sys
import jax, jax.numpy as jnp, numpy as np
{imports}
LABELS, CLASSES = int(sys.argv[1]), 24
random = np.random.default_rng(0)

def batch():
    features = random.normal(size=(8, 60, 16)).astype(np.float32)
    return features, random.integers(1, LABELS, (8, 10))
"""
PLAIN = (
    HEAD
    + """
optimizer = optax.adamw(1e-3)

def loss_fn(weights, features, labels):
    logits = features @ weights
    return {loss}(logits, jnp.zeros(logits.shape[:2]), labels, jnp.zeros(labels.shape)){index}.mean()

@jax.jit
def train_step(weights, state, features, labels):
    loss, gradient = jax.value_and_grad(loss_fn)(weights, features, labels)
    updates, state = optimizer.update(gradient, state, weights)
    return optax.apply_updates(weights, updates), state, loss

weights = jnp.zeros((16, CLASSES))
state = optimizer.init(weights)
for step in range(4):
    weights, state, loss = train_step(weights, state, *batch())
    {each}
print("done", float(loss).hex())
"""
)
NNX = (
    HEAD
    + """
from flax import nnx

def loss_fn(model, features, labels):
    logits = model(features)
    return ctc_loss(logits, jnp.zeros(logits.shape[:2]), labels, jnp.zeros(labels.shape)).mean()

@nnx.jit
def train_step(model, optimizer, features, labels):
    loss, gradient = nnx.value_and_grad(loss_fn)(model, features, labels)
    optimizer.update(model, gradient)
    return loss

model = nnx.Linear(16, CLASSES, rngs=nnx.Rngs(0))
optimizer = nnx.Optimizer(model, optax.adamw(1e-3), wrt=nnx.Param)
for step in range(4):
    loss = train_step(model, optimizer, *batch())
    {each}
print("done", float(loss).hex())
"""
)
PRINT = "print('step', step, float(loss).hex(), flush=True)"
FORMS = {
    "import optax": PLAIN.format(imports="import optax", loss="optax.ctc_loss", index="", each=PRINT),
    "from optax import": NNX.format(imports="import optax\nfrom optax import ctc_loss", each=PRINT),
    "forward probs by name": PLAIN.format(
        imports="import optax\nfrom optax.losses import ctc_loss_with_forward_probs as ctc",
        loss="ctc",
        index="[0]",
        each=PRINT,
    ),
    "nothing printed": PLAIN.format(imports="import optax", loss="optax.ctc_loss", index="", each="pass"),
    "torch as well": PLAIN.format(imports="import torch\nimport optax", loss="optax.ctc_loss", index="", each=PRINT),
    "torch afterwards": PLAIN.format(imports="import optax\nimport torch", loss="optax.ctc_loss", index="", each=PRINT),
}


SMALL = """
import threading
import jax, jax.numpy as jnp, optax

@jax.jit
def loss(x):
    jax.debug.callback(lambda: print(threading.current_thread() is threading.main_thread()))
    return optax.ctc_loss(x, jnp.zeros((1, 4)), jnp.asarray([[LABEL]]), jnp.zeros((1, 1))).sum()

for step in range(3):
    loss(jnp.zeros((1, 4, 5))).block_until_ready()
print("done")
"""
"""So small that XLA runs it, and its callbacks, in the main thread."""


@pytest.mark.parametrize(("label", "code"), [("9", 3), ("2", 0)])
def test_a_callback_in_the_main_thread_is_not_interrupted_itself(label: str, code: int) -> None:
    Path("train.py").write_text(SMALL.replace("LABEL", label))
    done = guarded("train.py")
    assert done.code == code, done.err
    assert "Traceback" not in done.err
    assert done.out.split() == (["True"] * 3 + ["done"] if code == 0 else ["True"])


@pytest.mark.parametrize("form", FORMS)
def test_a_wrong_script_is_stopped(form: str) -> None:
    Path("train.py").write_text(FORMS[form])
    done = guarded("train.py", "30")
    assert done.code == 3, done.err
    assert done.out == ""  # no step's loss was seen, nor the end
    [verdict] = records("verdict")
    assert (verdict["code"], verdict["cause"], verdict["step"]) == ("CTC201", "label-beyond-head", 0)
    [root] = [finding for finding in records("finding") if finding["code"] == "CTC201" and finding["step"] == 0]
    assert root["call_site"].startswith("train.py:")
    assert "Traceback" not in done.err
    assert done.err.startswith("╭─ CTC201 ")
    [end] = records("end")
    assert end["routes"]["callback"] >= 1


@pytest.mark.parametrize("form", ["import optax", "from optax import", "torch as well", "torch afterwards"])
def test_a_right_script_is_left_alone(form: str) -> None:
    Path("train.py").write_text(FORMS[form])
    done = guarded("train.py", "24")
    assert (done.code, done.err) == (0, "")
    assert done.out == printed("train.py", "24")
    [end] = records("end")
    assert (end["calls"], end["findings"]) == (4, 0)


def test_with_log_it_runs_to_its_end() -> None:
    Path("train.py").write_text(FORMS["import optax"])
    done = guarded("--on-error", "log", "train.py", "30")
    assert (done.code, done.err, done.out.count("step")) == (0, "", 4)
    assert {finding["step"] for finding in records("finding")} == {0, 1, 2, 3}


def test_a_script_that_catches_everything_still_leaves_its_findings() -> None:
    start, loop = FORMS["import optax"].split("for step in range(4):")
    body = "".join(f"    {line}\n" for line in f"for step in range(4):{loop}".splitlines())
    Path("train.py").write_text(f"{start}try:\n{body}except Exception as error:\n    print(type(error).__name__)\n")
    done = guarded("train.py", "30")
    assert (done.code, done.out) == (0, "CTCVerdictError\n")
    assert [verdict["code"] for verdict in records("verdict")] == ["CTC201"]


def test_a_traceback_is_the_script_s_own() -> None:
    Path("train.py").write_text(
        "import optax, jax.numpy as jnp\n"
        "optax.ctc_loss(jnp.zeros((2, 9, 4)), jnp.zeros((2, 8)), jnp.ones((2, 3)), jnp.zeros((2, 3)))\n"
    )
    plain, done = outcome("train.py"), guarded("train.py")
    assert done.code == plain.code == 1
    assert done.err == plain.err


def test_optax_without_a_ctc_loss_is_said() -> None:
    Path("train.py").write_text("import optax\nprint(float(optax.sgd(0.1).init({}) == ()) + 1)\n")
    guarded("train.py")
    assert [(finding["code"], finding["cause"]) for finding in records("finding")] == [("CTC901", "no-ctc-call")]
    assert "optax" in records("finding")[0]["evidence"]


def test_a_guarded_step_inside() -> None:
    text = FORMS["import optax"].replace("@jax.jit", "@ctcguard.guard_step(run_dir='inner')\n@jax.jit")
    Path("train.py").write_text("import ctcguard\n" + text)
    done = guarded("train.py", "30")
    assert done.code == 3
    assert (Path("inner") / "findings.jsonl").exists()
    assert records("end")[0]["calls"] == 0


def test_the_devices_of_a_step_are_one_step() -> None:
    Path("train.py").write_text(
        "import sys, jax, jax.numpy as jnp, numpy as np, optax\n"
        "loss = lambda x, y: optax.ctc_loss(x, jnp.zeros(x.shape[:2]), y, jnp.zeros(y.shape)).mean()\n"
        "step = jax.pmap(lambda x, y: x - jax.lax.pmean(jax.grad(loss)(x, y), 'd'), axis_name='d')\n"
        "logits = jnp.zeros((4, 1, 9, 5))\n"
        "for last in map(int, sys.argv[1:]):\n"
        "    logits = step(logits, np.asarray([1, 2, 3, last]).reshape(4, 1, 1))\n"
        "    print(float(logits.sum()) < 1, flush=True)\n"
    )
    done = guarded("train.py", "1", "2", "3", devices=4)
    assert (done.code, done.err, done.out.count("True")) == (0, "", 3)
    [end] = records("end")
    assert (end["steps"], end["calls"], end["findings"]) == (3, 3 * 4, 0)
    FINDINGS.unlink()
    assert guarded("train.py", "1", "2", "9", devices=4).code == 3
    assert {verdict["step"] for verdict in records("verdict")} == {2}
