"""What the real Trainer makes of the loss: A times too large while it accumulates, or hidden from its log."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import (
    Trainer,
    TrainingArguments,
    Wav2Vec2BertConfig,
    Wav2Vec2BertForCTC,
    default_data_collator,
)

from ctcguard import CTCGuard, CTCVerdictError

CLASSES = 13


def a_model(**config: Any) -> Wav2Vec2BertForCTC:
    torch.manual_seed(0)
    options = {
        "vocab_size": CLASSES, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 16, "feature_projection_input_dim": 8, "pad_token_id": 0, "layerdrop": 0.0,
        "conv_depthwise_kernel_size": 3, "ctc_loss_reduction": "mean", "mask_time_prob": 0.0,
        "hidden_dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0, "final_dropout": 0.0,
        "feat_proj_dropout": 0.0, "conformer_conv_dropout": 0.0,
    }  # fmt: skip
    return Wav2Vec2BertForCTC(Wav2Vec2BertConfig(**{**options, **config}))


def speech(count: int = 16) -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [
        {
            "input_features": torch.randn(40, 8, generator=generator),
            "labels": torch.randint(3, CLASSES, (6,), generator=generator),
        }
        for _ in range(count)
    ]


def a_trainer(model: Any = None, kind: type[Trainer] = Trainer, count: int = 16, **options: Any) -> Trainer:
    arguments = {
        "output_dir": "out", "per_device_train_batch_size": 2, "gradient_accumulation_steps": 4, "max_steps": 2,
        "save_strategy": "no", "logging_steps": 1, "report_to": [], "disable_tqdm": True, "seed": 0, "use_cpu": True,
        "train_sampling_strategy": "sequential", "max_grad_norm": 1e9,
    }  # fmt: skip
    arguments = TrainingArguments(**{**arguments, **options})
    return kind(model or a_model(), arguments, default_data_collator, speech(count))


def verdicts(trainer: Trainer, **settings: Any) -> list[tuple[str, str, int]]:
    """Code, cause and step of what a guarded training says."""
    guard = CTCGuard(**{"on_error": "log", "on_warning": "log", "sinks": (), **settings})
    trainer.add_callback(guard)
    trainer.train()
    assert guard.watch is not None
    return [(found.code, found.cause, found.step) for found in guard.watch.verdicts]


def logged(trainer: Trainer, name: str) -> list[float]:
    return [entry[name] for entry in trainer.state.log_history if name in entry]


# CTC506.

SCALED = ("CTC506", "mean-reduction", 0)


def test_accumulated_means_are_said_at_the_first_step() -> None:
    trainer = a_trainer()
    assert verdicts(trainer) == [SCALED]
    assert trainer.state.global_step == 2
    assert "training_step" not in vars(trainer)
    assert "log" not in vars(trainer)


def test_whatever_the_interval_of_the_log() -> None:
    assert verdicts(a_trainer(logging_steps=500, logging_nan_inf_filter=False)) == [SCALED]


def test_it_can_end_the_run_before_the_weights_are_touched() -> None:
    trainer = a_trainer()
    before = [parameter.clone() for parameter in trainer.model.parameters()]
    trainer.add_callback(CTCGuard(on_warning="raise", sinks=()))
    with pytest.raises(CTCVerdictError) as caught:
        trainer.train()
    root = caught.value.verdict.root
    assert (root.code, root.step, root.source) == ("CTC506", 0, "Trainer.training_step")
    assert "loss and gradient are 4 times too large" in root.message
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.model.parameters(), strict=True))
    assert "training_step" not in vars(trainer)


def as_it_is(trainer: Trainer) -> None:
    """The mistake."""


def as_the_fix_says(trainer: Trainer) -> None:
    trainer.model_accepts_loss_kwargs = False


def loss_is_not_scaled(trainer: Trainer) -> None:
    trainer.loss_is_scaled_for_ga = False


@pytest.mark.parametrize(
    ("fix", "factor", "said"), [(as_it_is, 4, [SCALED]), (as_the_fix_says, 1, []), (loss_is_not_scaled, 1, [])]
)
def test_the_fix_gives_the_loss_and_the_gradient_of_one_large_batch(fix: Any, factor: int, said: Any) -> None:
    large = a_trainer(per_device_train_batch_size=8, gradient_accumulation_steps=1, max_steps=1)
    assert verdicts(large) == []
    small = a_trainer(max_steps=1)
    fix(small)
    assert verdicts(small) == said
    for name in ("loss", "grad_norm"):
        assert logged(small, name)[0] == pytest.approx(factor * logged(large, name)[0], rel=1e-4)


def test_the_other_form_of_the_fix() -> None:
    model = a_model()
    model.accepts_loss_kwargs = False
    trainer = a_trainer(model)
    assert verdicts(trainer) == []
    assert not trainer.model_accepts_loss_kwargs


class Divides(Trainer):
    """A loss of one's own that knows of the accumulation."""

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        return super().compute_loss(model, inputs, *args, **kwargs) / self.args.gradient_accumulation_steps


class DividesInItsStep(Trainer):
    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        return super().training_step(*args, **kwargs) / self.args.gradient_accumulation_steps


class WithAnotherTerm(Trainer):
    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        outputs = model(**inputs)
        return 0.7 * outputs.loss + 0.3 * outputs.logits.square().mean()


class WithTwoHeads(Trainer):
    """Two CTC calls a micro-batch, and their mean."""

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        return (model(**inputs).loss + model(**inputs).loss) / 2


@pytest.mark.parametrize("kind", [Divides, DividesInItsStep, WithAnotherTerm, WithTwoHeads])
def test_a_loss_of_ones_own_is_left_in_peace(kind: type[Trainer]) -> None:
    assert verdicts(a_trainer(kind=kind)) == []


def test_a_sum_is_right_without_a_division() -> None:
    assert verdicts(a_trainer(a_model(ctc_loss_reduction="sum"))) == []


def test_without_accumulation_there_is_nothing_to_divide() -> None:
    assert verdicts(a_trainer(gradient_accumulation_steps=1)) == []


@pytest.mark.parametrize(("count", "steps"), [(10, 6), (12, 6), (14, 6)])
def test_the_last_step_of_an_epoch_may_have_fewer_micro_batches(count: int, steps: int) -> None:
    """One, two or three instead of four: the Trainer then divides by that many."""
    trainer = a_trainer(count=count, max_steps=steps)
    as_the_fix_says(trainer)
    assert verdicts(trainer) == []
    assert verdicts(a_trainer(count=count, max_steps=steps)) == [SCALED]


def test_a_training_in_a_training_that_was_resumed() -> None:
    first = a_trainer(save_strategy="steps", save_steps=1, max_steps=1)
    assert verdicts(first) == [SCALED]
    resumed = a_trainer(max_steps=2, restore_callback_states_from_checkpoint=True)
    guard = CTCGuard(on_error="log", on_warning="log", sinks=())
    resumed.add_callback(guard)
    resumed.train(resume_from_checkpoint="out/checkpoint-1")
    (restored,) = [each for each in resumed.callback_handler.callbacks if isinstance(each, CTCGuard)]
    assert restored.watch is not None
    assert [(found.code, found.step) for found in restored.watch.findings] == [("CTC506", 1)]
    assert restored.watch.verdicts == []  # said before the checkpoint was written


def test_a_method_of_the_users_own_is_put_back() -> None:
    trainer = a_trainer()
    calls = []
    original = trainer.training_step

    def own(*args: Any, **kwargs: Any) -> Any:
        calls.append(len(args))
        return original(*args, **kwargs)

    trainer.training_step = own
    assert verdicts(trainer) == [SCALED]
    assert len(calls) == 8
    assert vars(trainer)["training_step"] is own


# CTC507.


class WithMetric(Trainer):
    """Adds a term without a gradient, which is not finite at some steps: the weights stay well."""

    bad = (2,)
    value = torch.nan

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        loss = super().compute_loss(model, inputs, *args, **kwargs)
        return loss + (self.value if self.state.global_step in self.bad else 0.0)


class WithAnInfiniteMetric(WithMetric):
    value = torch.inf


ALONE = {"gradient_accumulation_steps": 1, "max_steps": 6}
HIDDEN = ("CTC507", "nan-filtered")


@pytest.mark.parametrize("kind", [WithMetric, WithAnInfiniteMetric])
def test_a_hidden_loss_is_said_when_the_log_lies(kind: type[Trainer]) -> None:
    trainer = a_trainer(kind=kind, **ALONE)
    assert verdicts(trainer) == [(*HIDDEN, 2)]
    assert logged(trainer, "loss")[2] == 0.0
    assert all(torch.isfinite(parameter).all() for parameter in trainer.model.parameters())


def test_the_window_of_the_log_counts() -> None:
    trainer = a_trainer(kind=WithMetric, logging_steps=3, **ALONE)
    guard = CTCGuard(on_error="log", on_warning="log", sinks=())
    trainer.add_callback(guard)
    trainer.train()
    assert guard.watch is not None
    (finding,) = guard.watch.findings
    assert "the loss of 1 of 3 micro-batches was not finite, first in step 2" in finding.message
    assert f"the log says loss {logged(trainer, 'loss')[0]:.4g}" in finding.message
    assert "another term" in finding.evidence


def test_healthy_logs_are_left_in_peace() -> None:
    assert verdicts(a_trainer(**ALONE)) == []
    assert verdicts(a_trainer(logging_steps=4, **ALONE)) == []


def test_a_log_that_shows_it_hides_nothing() -> None:
    trainer = a_trainer(kind=WithMetric, logging_nan_inf_filter=False, **ALONE)
    assert verdicts(trainer) == []
    assert str(logged(trainer, "loss")[2]) == "nan"


def test_it_is_no_second_verdict_of_a_loss_that_ctc_itself_made() -> None:
    trainer = a_trainer(**ALONE)
    trainer.train_dataset[5]["input_features"][3, 2] = torch.nan
    found = verdicts(trainer)
    assert [code for code, *_ in found] == ["CTC403"]
    assert 0.0 in logged(trainer, "loss")


def test_nor_of_a_gradient_that_spoilt_the_weights() -> None:
    class Spoils(WithMetric):
        def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            return super().compute_loss(model, inputs, *args, **kwargs) * 1.0 + (
                0.0 * model.lm_head.weight.sum() * (torch.nan if self.state.global_step == 2 else 1.0)
            )

    Spoils.bad = ()
    assert [code for code, *_ in verdicts(a_trainer(kind=Spoils, **ALONE))] == ["CTC601"]


# What must stay as it is.


@pytest.mark.parametrize("options", [{}, {"gradient_accumulation_steps": 1}, {"logging_steps": 2}])
def test_bit_equal_with_and_without(options: dict[str, Any]) -> None:
    alone, guarded = a_trainer(**options), a_trainer(**options)
    alone.train()
    verdicts(guarded)
    for a, b in zip(alone.model.parameters(), guarded.model.parameters(), strict=True):
        assert torch.equal(a, b)
    for name in ("loss", "grad_norm", "train_loss"):
        assert logged(alone, name) == logged(guarded, name)
