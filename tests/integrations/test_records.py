"""Records of torch, Hugging Face and JAX runs: one format, and a replay that says what the run said."""

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
import torch

from ctcguard import CTCGuard, CTCVerdictError, guard_step, observe, watch
from ctcguard.record import Record, read
from ctcguard.replay import judged_again, utterances
from ctcguard_integrations import jax_measured

SYMBOLS = ["<pad>", "<unk>", "|", *"abcdefghi"]
CLASSES, FRAMES = len(SYMBOLS), 30
LABELS = np.asarray([[3, 4, 2, 5, 5], [6, 7, 8, 9, 2], [3, 3, 10, 2, 4], [11, 5, 3, 6, 7]], dtype=np.int32)
FEATURES = np.random.default_rng(0).normal(size=(4, FRAMES, 8)).astype(np.float32)
WEIGHTS = np.random.default_rng(1).normal(size=(8, CLASSES)).astype(np.float32)
QUIET: dict[str, Any] = {"sinks": ("jsonl",), "run_dir": "run", "vocabulary": SYMBOLS}
LATER = {**QUIET, "on_error": "log", "on_warning": "log"}


def records(folder: str = "run") -> list[Record]:
    return [read(path) for path in sorted(Path(folder).glob("*.safetensors"))]


def said(folder: str = "run") -> list[tuple[str, str, list[str]]]:
    lines = map(json.loads, Path(folder, "findings.jsonl").read_text(encoding="utf-8").splitlines())
    return [(line["code"], line["cause"], line["also"]) for line in lines if line["type"] == "verdict"]


def replayed(record: Record) -> list[tuple[str, str, list[str]]]:
    found = judged_again(record)
    assert found.not_run == ()
    return [(each.code, each.cause, sorted({finding.code for finding in each.also})) for each in found.verdicts]


# torch


def train_torch(softmax: bool, labels: Any = LABELS) -> torch.Tensor:
    """Two steps; the scores of the first."""
    head = torch.nn.Parameter(torch.from_numpy(WEIGHTS.copy()))
    optimizer = torch.optim.SGD([head], lr=0.01)
    made = []
    for _ in range(2):
        logits = torch.from_numpy(FEATURES) @ head
        made.append((logits.softmax(-1) if softmax else logits.log_softmax(-1)).transpose(0, 1))
        lengths, counts = torch.tensor([30, 30, 25, 20]), torch.tensor([5, 5, 4, 3])
        torch.nn.CTCLoss()(made[-1], torch.as_tensor(labels), lengths, counts).backward()
        optimizer.step()
        optimizer.zero_grad()
    return made[0].detach().transpose(0, 1)


@pytest.mark.parametrize("reaction", ["raise", "log"])
def test_torch(reaction: str) -> None:
    try:
        with watch(**{**QUIET, "on_error": reaction}) as guard:
            guard.batch(["a", "b", "c", "d"])
            train_torch(softmax=True)
    except CTCVerdictError:
        assert reaction == "raise"
    (record,) = records()
    assert replayed(record) == said()
    assert record.ids == ("a", "b", "c", "d")
    assert record.texts[0] == "ab|cc"
    assert record.scores is not None
    made = (torch.from_numpy(FEATURES) @ torch.from_numpy(WEIGHTS)).softmax(-1)
    assert record.scores.tobytes() == made.numpy().tobytes()
    assert record.provenance.softmax() is not None


@pytest.mark.parametrize("reaction", ["raise", "log"])
def test_torch_healthy(reaction: str) -> None:
    with watch(**{**QUIET, "on_error": reaction}):
        train_torch(softmax=False)
    assert records() == []


# Hugging Face


def test_hugging_face(trainer: Callable[..., Any]) -> None:
    training, guard = trainer(vocab_size=8), CTCGuard(sinks=("jsonl",))
    training.add_callback(guard)
    with pytest.raises(CTCVerdictError):
        training.train()
    folder = "out/ctcguard"
    assert {code for code, _, _ in said(folder)} == {"CTC101"}  # before the first call: there is nothing to record
    assert records(folder) == []
    training, guard = trainer(labels=34), CTCGuard(sinks=("jsonl",), run_dir="late")
    training.add_callback(guard)
    with pytest.raises(CTCVerdictError):
        training.train()
    (record,) = records("late")
    assert [each[0] for each in said("late")] == ["CTC301"]
    assert replayed(record) == said("late")
    assert record.about["versions"].keys() >= {"torch", "transformers"}
    assert record.texts[0] is not None
    assert record.texts[0].startswith("abcdefgabc")
    assert record.is_whole


def test_hugging_face_healthy(trainer: Callable[..., Any]) -> None:
    training, guard = trainer(), CTCGuard(sinks=("jsonl",))
    training.add_callback(guard)
    training.train()
    assert [line[0] for line in said("out/ctcguard")] == []
    assert records("out/ctcguard") == []


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Makes Trainers of a tiny random recogniser."""
    transformers = pytest.importorskip("transformers")
    Path("vocab.json").write_text(json.dumps({symbol: i for i, symbol in enumerate(SYMBOLS)}))
    tokenizer = transformers.Wav2Vec2CTCTokenizer(
        "vocab.json", unk_token="<unk>", pad_token="<pad>", word_delimiter_token="|", bos_token=None, eos_token=None
    )

    def make(vocab_size: int = CLASSES, labels: int = 7) -> Any:
        torch.manual_seed(0)
        config = transformers.Wav2Vec2BertConfig(
            vocab_size=vocab_size, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
            feature_projection_input_dim=8, pad_token_id=0, layerdrop=0.0, conv_depthwise_kernel_size=3,
            ctc_loss_reduction="mean", mask_time_prob=0.0,
        )  # fmt: skip
        clips = [
            {"input_features": torch.from_numpy(FEATURES[i]), "labels": 3 + torch.arange(labels) % 7 + i % 2}
            for i in range(4)
        ]
        return transformers.Trainer(
            transformers.Wav2Vec2BertForCTC(config),
            transformers.TrainingArguments(
                output_dir="out", per_device_train_batch_size=2, max_steps=2, report_to=[], disable_tqdm=True,
                use_cpu=True, save_strategy="no", seed=0, data_seed=0,
            ),
            train_dataset=clips, data_collator=transformers.default_data_collator, processing_class=tokenizer,
        )  # fmt: skip

    return make


# JAX


def loss_of(weights: Any, features: Any, labels: Any, softmax: bool) -> Any:
    logits = features @ weights
    logits = jax.nn.softmax(logits) if softmax else logits
    paddings = jnp.arange(FRAMES)[None] >= jnp.asarray([30, 30, 25, 20])[:, None]
    label_paddings = jnp.arange(5)[None] >= jnp.asarray([5, 5, 4, 3])[:, None]
    return optax.ctc_loss(logits, paddings.astype(jnp.float32), labels, label_paddings.astype(jnp.float32)).mean()


def step_of(softmax: bool, dtype: Any = jnp.float32) -> Callable[..., Any]:
    def step(weights: Any, features: Any, labels: Any) -> Any:
        gradient = jax.grad(loss_of)(weights.astype(dtype), features.astype(dtype), labels, softmax)
        return weights - 0.01 * gradient.astype(jnp.float32)

    return step


def scanned(softmax: bool) -> Callable[..., Any]:
    def step(weights: Any, features: Any, labels: Any) -> Any:
        def body(weights: Any, _: Any) -> Any:
            return step_of(softmax)(weights, features, labels), None

        return jax.lax.scan(body, weights, jnp.arange(1))[0]

    return step


def train_jax(step: Callable[..., Any], settings: dict[str, Any], labels: Any = LABELS) -> Any:
    guarded = guard_step(step, **settings)
    weights = jnp.asarray(WEIGHTS)
    try:
        for _ in range(2):
            guarded.batch(["a", "b", "c", "d"])
            weights = guarded(weights, jnp.asarray(FEATURES), jnp.asarray(labels))
    except CTCVerdictError:
        assert settings is QUIET
    finally:
        guarded.close()
    return guarded


@pytest.mark.parametrize("settings", [QUIET, LATER], ids=["raise", "log"])
@pytest.mark.parametrize("compiled", [True, False], ids=["compiled", "not compiled"])
def test_jax(compiled: bool, settings: dict[str, Any]) -> None:
    step = step_of(softmax=True)
    train_jax(jax.jit(step) if compiled else step, settings)
    (record,) = records()
    assert replayed(record) == said() == [("CTC404", "softmax-before-loss", [])]
    assert record.ids == ("a", "b", "c", "d")
    assert record.texts[1] == "defg|"
    assert record.scores is not None
    assert record.scores == pytest.approx(np.asarray(jax.nn.softmax(FEATURES @ WEIGHTS)), rel=1e-5)
    seen = list(utterances(record, judged_again(record).findings))
    assert all(each.agrees() for each in seen)
    assert [each.frames for each in seen] == [30, 30, 25, 20]
    assert [len(each.labels) for each in seen] == [5, 5, 4, 3]


@pytest.mark.parametrize("settings", [QUIET, LATER], ids=["raise", "log"])
def test_jax_healthy(settings: dict[str, Any]) -> None:
    train_jax(jax.jit(step_of(softmax=False)), settings)
    assert records() == []


def test_jax_in_bfloat16() -> None:
    train_jax(jax.jit(step_of(softmax=True, dtype=jnp.bfloat16)), LATER)
    (record,) = records()
    assert replayed(record) == said()
    assert record.scores is not None
    expected = jax.nn.softmax(jnp.asarray(FEATURES, jnp.bfloat16) @ jnp.asarray(WEIGHTS, jnp.bfloat16))
    assert record.scores == pytest.approx(np.asarray(expected.astype(jnp.float32)), abs=0.01)
    assert np.array_equal(
        record.scores, np.asarray(jnp.asarray(record.scores).astype(jnp.bfloat16).astype(jnp.float32))
    )


def test_jax_where_scores_have_no_way_out_what_was_measured_is_recorded() -> None:
    train_jax(jax.jit(scanned(softmax=True)), LATER)
    (record,) = records()
    assert record.scores is None
    assert record.about["left_out"]["scores"].startswith("no longer there")
    assert record.arrays["targets"].tolist() == LABELS.tolist()
    assert record.arrays["input_lengths"].tolist() == [30, 30, 25, 20]
    assert record.arrays["losses"].shape == (4,)
    assert replayed(record) == said() == [("CTC404", "softmax-before-loss", [])]


def test_jax_scores_that_are_too_large_do_not_leave_the_step() -> None:
    train_jax(jax.jit(step_of(softmax=True)), {**LATER, "record_mb": 0.005})
    assert records() == []  # nor is there room for the rest
    assert [code for code, _, _ in said()] == ["CTC404", "CTC902"]


def test_jax_labels_beyond_the_head() -> None:
    train_jax(jax.jit(step_of(softmax=False)), QUIET, labels=np.where(LABELS == 11, 12, LABELS))
    (record,) = records()
    assert replayed(record) == said()
    assert record.verdicts[0].root.affected == {3}


def test_jax_with_a_loss_of_ones_own() -> None:
    @jax.jit
    def step(scores: Any) -> Any:
        observe(log_probs=scores, targets=LABELS, input_lengths=[30] * 4, target_lengths=[5] * 4, blank=0)
        return scores.sum()

    guarded = guard_step(step, **LATER)
    guarded(jax.nn.softmax(jnp.asarray(FEATURES @ WEIGHTS)))
    guarded.close()
    (record,) = records()
    assert replayed(record) == said()
    assert "losses" not in record.arrays


def test_jax_labels_in_other_processes_are_not_made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several processes are not started here: JAX is asked whether it has all, and says no."""
    monkeypatch.setattr(jax_measured.OnHost, "is_whole", property(lambda array: False))
    train_jax(jax.jit(step_of(softmax=True)), LATER)
    (record,) = records()
    assert record.arrays.keys() & {"scores", "targets"} == set()
    assert record.about["left_out"].keys() == {"scores", "targets"}
    assert (record.ids, record.texts) == (("a", "b", "c", "d"), (None,) * 4)
    assert replayed(record) == said() == [("CTC404", "softmax-before-loss", [])]


# Every framework


def test_one_format() -> None:
    with watch(**LATER):
        train_torch(softmax=True)
    train_jax(jax.jit(step_of(softmax=True)), {**LATER, "run_dir": "jax"})
    (one,), (other,) = records(), records("jax")
    assert one.about.keys() == other.about.keys()
    plain = [{name for name in record.arrays if "." not in name} for record in (one, other)]
    assert plain == [{"scores", "targets", "input_lengths", "target_lengths", "losses"}] * 2


WITH_WANDB = """
import torch, wandb
from ctcguard import watch
vocabulary = ["<pad>", *(f"SECRET{i}" for i in range(9))]
with wandb.init(settings=wandb.Settings(silent=True, console="off", x_disable_stats=True)):
    with watch(on_error="alert", vocabulary=vocabulary, run_dir="run") as guard:
        guard.batch(["SECRET-a", "SECRET-b"])
        guard.observe(
            log_probs=torch.randn(2, 9, 10).log_softmax(-1), targets=[[4, 5, 6, 7]] * 2, input_lengths=[9, 2],
            target_lengths=[4, 4], blank=0,
        )
"""


@pytest.mark.parametrize("redact", [True, False])
def test_redact_holds_for_wandb_too(redact: bool) -> None:
    environment = {**os.environ, "WANDB_MODE": "offline", "CTCGUARD_REDACT": str(redact), "PYTHONWARNINGS": "ignore"}
    subprocess.run([sys.executable, "-c", WITH_WANDB], check=True, env=environment, capture_output=True)
    (log,) = Path("wandb").glob("offline-run-*/*.wandb")
    assert b"CTC301" in log.read_bytes()
    assert (b"SECRET" in log.read_bytes()) != redact
    assert any(b"SECRET" in path.read_bytes() for path in Path("run").iterdir()) != redact
