"""`CTCGuard` in the real Hugging Face Trainer on a tiny random Wav2Vec2-BERT."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    Trainer,
    TrainerCallback,
    TrainingArguments,
    Wav2Vec2BertConfig,
    Wav2Vec2BertForCTC,
    Wav2Vec2CTCTokenizer,
    default_data_collator,
)

from ctcguard import CTCGuard, CTCVerdictError, SettingsError

PRISTINE = torch.ctc_loss
SYMBOLS = ["<pad>", "<unk>", "|", *"abcdefghij"]


@pytest.fixture
def tokenizer(tmp_path: Path) -> Wav2Vec2CTCTokenizer:
    """Its length is the head's + 2: <s> and </s> never occur."""
    vocab = tmp_path / "vocab.json"
    vocab.write_text(json.dumps({symbol: i for i, symbol in enumerate(SYMBOLS)}))
    return Wav2Vec2CTCTokenizer(str(vocab), unk_token="<unk>", pad_token="<pad>", word_delimiter_token="|")


def a_model(**config: Any) -> Wav2Vec2BertForCTC:
    torch.manual_seed(0)
    options = {
        "vocab_size": len(SYMBOLS), "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 16, "feature_projection_input_dim": 8, "pad_token_id": 0, "layerdrop": 0.0,
        "conv_depthwise_kernel_size": 3, "ctc_loss_reduction": "mean", "mask_time_prob": 0.0,
    }  # fmt: skip
    model = Wav2Vec2BertForCTC(Wav2Vec2BertConfig(**{**options, **config}))
    model.accepts_loss_kwargs = False  # so that the Trainer divides by the accumulation
    return model


def speech(count: int = 16) -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [
        {
            "input_features": torch.randn(40, 8, generator=generator),
            "labels": torch.randint(3, len(SYMBOLS), (6,), generator=generator),
        }
        for _ in range(count)
    ]


def a_trainer(tokenizer: Any, model: Any = None, data: Any = None, **options: Any) -> Trainer:
    arguments = {
        "output_dir": "out", "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2,
        "num_train_epochs": 2, "eval_strategy": "epoch", "save_strategy": "epoch", "logging_steps": 1,
        "report_to": [], "disable_tqdm": True, "seed": 0, "use_cpu": True, "learning_rate": 1e-3,
    }  # fmt: skip
    callbacks = options.pop("callbacks", None)
    data = data or speech()
    return Trainer(
        model or a_model(),
        TrainingArguments(**{**arguments, **options}),
        train_dataset=data,
        eval_dataset=data[:4],
        data_collator=default_data_collator,
        processing_class=tokenizer,
        callbacks=callbacks,
    )


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(left[name], right[name]) for name in left)


def records(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "findings.jsonl").read_text().splitlines()]


def test_two_epochs_accumulation_evaluation_checkpoint_and_resume_one_line_added(tokenizer: Any) -> None:
    plain = a_trainer(tokenizer, output_dir="plain")
    plain.train()

    trainer = a_trainer(tokenizer, output_dir="guarded")
    guard = CTCGuard()
    trainer.add_callback(guard)
    trainer.train()
    assert same(weights(plain), weights(trainer))
    assert [log["loss"] for log in trainer.state.log_history if "loss" in log] == [
        log["loss"] for log in plain.state.log_history if "loss" in log
    ]
    (end,) = records(Path("guarded/ctcguard"))
    assert (end["steps"], end["calls"], end["findings"]) == (
        8,
        16 + 2,
        0,
    )  # a micro-batch each, one evaluation batch twice

    resumed = a_trainer(tokenizer, output_dir="guarded")
    again = CTCGuard()
    resumed.add_callback(again)
    resumed.train(resume_from_checkpoint="guarded/checkpoint-4")
    assert same(weights(plain), weights(resumed))
    assert again.watch is not None
    assert (again.watch.findings, again.watch.guard.step) == ([], 8)
    assert torch.ctc_loss is PRISTINE


def test_steps_are_the_trainers_own(tokenizer: Any) -> None:
    data = speech()
    data[9]["input_features"][3, 2] = float("nan")

    class NoShuffle(Trainer):
        def _get_train_sampler(self, *args: Any, **kwargs: Any) -> Any:
            return torch.utils.data.SequentialSampler(data)

    trainer = a_trainer(tokenizer, data=data, eval_strategy="no", save_strategy="no")
    trainer.__class__ = NoShuffle
    trainer.add_callback(CTCGuard())
    before: dict[int, dict[str, torch.Tensor]] = {}

    class Keep(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            before[state.global_step] = weights(trainer)

    trainer.add_callback(Keep())
    with pytest.raises(CTCVerdictError) as caught:
        trainer.train()
    root = caught.value.verdict.root
    assert (root.code, root.step, root.micro_step) == ("CTC403", 2, 0)  # item 9: third step, first micro-batch
    assert [utterance.index for utterance in root.utterances] == [1]
    assert root.utterances[0].text == tokenizer.decode(data[9]["labels"], group_tokens=False)
    assert same(before[2], weights(trainer))
    assert torch.ctc_loss is PRISTINE


def narrow_head() -> Wav2Vec2BertForCTC:
    """The config claims more classes than the head has, so that transformers' own check of the labels passes."""
    model = a_model(vocab_size=64)
    model.lm_head = torch.nn.Linear(16, 8)
    return model


@pytest.mark.parametrize("form", ["instance", "class"])
def test_head_narrower_than_the_tokenizer_is_caught_at_train_begin(tokenizer: Any, form: str) -> None:
    trainer = a_trainer(tokenizer, narrow_head(), callbacks=[CTCGuard if form == "class" else CTCGuard()])
    with pytest.raises(CTCVerdictError) as caught:
        trainer.train()
    verdict = caught.value.verdict
    assert (verdict.code, verdict.root.phase, verdict.step) == ("CTC101", "setup", 0)
    assert [finding.code for finding in verdict.also] == ["CTC104"]
    assert "vocab_size=len(tokenizer)" in verdict.root.fix
    assert torch.ctc_loss is PRISTINE


def test_without_a_tokenizer_the_first_batch_with_such_a_label_tells(tokenizer: Any) -> None:
    trainer = a_trainer(None, narrow_head(), callbacks=[CTCGuard()])
    with pytest.raises(CTCVerdictError) as caught:
        trainer.train()
    verdict = caught.value.verdict
    assert (verdict.code, verdict.step) == ("CTC201", 0)
    assert "vocab_size=len(tokenizer)" in verdict.root.fix
    assert " 8 " in f"{verdict.root.message} "


def test_alert_reports_the_narrow_head_once(tokenizer: Any) -> None:
    model = narrow_head()
    model.lm_head = torch.nn.Linear(16, 12)
    data = speech()
    for item in data:
        item["labels"] = item["labels"].clamp(max=11)
    guard = CTCGuard(on_error="alert")
    a_trainer(tokenizer, model, data, callbacks=[guard], max_steps=2).train()
    assert guard.watch is not None
    assert [verdict.code for verdict in guard.watch.verdicts] == ["CTC101"]


def test_stop_ends_training_gracefully_with_the_weights_untouched(tokenizer: Any) -> None:
    data = speech()
    data[3]["input_features"][:, 1] = float("nan")
    guard = CTCGuard(on_error="stop")
    trainer = a_trainer(tokenizer, data=data, callbacks=[guard], eval_strategy="no")
    trainer.train()
    assert trainer.state.global_step < 8
    assert all(bool(torch.isfinite(value).all()) for value in weights(trainer).values())
    assert guard.watch is not None
    assert [verdict.action for verdict in guard.watch.verdicts] == ["stop"]
    assert torch.ctc_loss is PRISTINE


def test_removed_when_training_fails_for_another_reason(tokenizer: Any) -> None:
    class Fails(TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            raise KeyError("the user's own")

    trainer = a_trainer(tokenizer, callbacks=[CTCGuard(), Fails()])
    with pytest.raises(KeyError):
        trainer.train()
    assert torch.ctc_loss is PRISTINE
    assert records(Path("out/ctcguard"))[-1]["type"] == "end"


def test_settings_survive_a_resume_that_restores_callbacks(tokenizer: Any) -> None:
    guard = CTCGuard(on_error="alert", vocabulary=tokenizer, run_dir=Path("mine"))
    a_trainer(tokenizer, callbacks=[guard], eval_strategy="no").train()
    resumed = a_trainer(
        tokenizer, callbacks=[CTCGuard()], restore_callback_states_from_checkpoint=True, eval_strategy="no"
    )
    resumed.train(resume_from_checkpoint="out/checkpoint-4")
    (restored,) = [callback for callback in resumed.callback_handler.callbacks if isinstance(callback, CTCGuard)]
    assert restored.watch is not None
    settings = restored.watch.guard.settings
    assert (settings.on_error, settings.run_dir) == ("alert", Path("mine"))
    assert settings.vocabulary is not None
    assert restored.watch.findings == []


def test_removed_when_a_training_fails_whose_callbacks_were_restored(tokenizer: Any) -> None:
    class Fails(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step > 4:
                raise KeyError("the user's own")

    options: dict[str, Any] = {"eval_strategy": "no", "restore_callback_states_from_checkpoint": True}
    a_trainer(tokenizer, callbacks=[CTCGuard()], **options).train()
    resumed = a_trainer(tokenizer, callbacks=[CTCGuard(), Fails()], **options)
    with pytest.raises(KeyError):
        resumed.train(resume_from_checkpoint="out/checkpoint-4")
    assert torch.ctc_loss is PRISTINE
    assert records(Path("out/ctcguard"))[-1]["type"] == "end"


def test_one_guard_for_two_trainings(tokenizer: Any) -> None:
    guard = CTCGuard()
    trainer = a_trainer(tokenizer, callbacks=[guard], max_steps=2, eval_strategy="no", save_strategy="no")
    trainer.train()
    trainer.train()
    ends = [record for record in records(Path("out/ctcguard")) if record["type"] == "end"]
    assert [end["calls"] for end in ends] == [4, 4]


def test_a_wrong_setting_is_said_before_training() -> None:
    with pytest.raises(SettingsError, match="'on_eror' is no setting of ctcguard; the settings are: on_error"):
        CTCGuard(on_eror="alert")
