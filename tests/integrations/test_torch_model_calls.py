"""The model is found and run again, however it is called: inputs of every form, wrapped, compiled, in transformers."""

from __future__ import annotations

import socket
from collections import UserDict
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    Trainer,
    TrainingArguments,
    Wav2Vec2BertConfig,
    Wav2Vec2BertForCTC,
    Wav2Vec2Config,
    Wav2Vec2ConformerConfig,
    Wav2Vec2ConformerForCTC,
    Wav2Vec2ForCTC,
)

from ctcguard import CTCGuard, CTCVerdictError, watch
from ctcguard_integrations.torch_loop import Watch
from tests.integrations.recognisers import CLASSES, Loop, Plain, Recurrent, Transformer, valid

Given = dict[str, Tensor]


def mixes(x: Tensor) -> Tensor:
    return x.reshape(x.shape[1], x.shape[0], x.shape[2]).transpose(0, 1)


class Other(nn.Module):
    """A recogniser that is called in another way."""

    def __init__(self, mixed: bool = False) -> None:
        super().__init__()
        self.inner = Recurrent(before=mixes) if mixed else Recurrent()


class Out(NamedTuple):
    logits: Tensor
    lengths: Tensor


class TimeFirst(Other):
    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        made: Tensor = self.inner(x.transpose(0, 1), lengths)
        return made


class Keywords(Other):
    def forward(self, *, features: Tensor, feature_lengths: list[int], device: torch.device | None = None) -> Out:
        lengths = torch.tensor(feature_lengths)
        return Out(self.inner(features, lengths).transpose(0, 1), lengths)


class OneDict(Other):
    def forward(self, batch: Any) -> dict[str, Any]:
        assert [name[0] for name in batch["names"]] == [chr(97 + int(n) % 26) for n in batch["speech"][1]]
        return {"loss": None, "scores": [self.inner(*batch["speech"]).permute(1, 2, 0)]}


class Mask(Other):
    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        made: Tensor = self.inner(x, (~mask).sum(1))
        return made


class Fractions(Other):
    def forward(self, x: Tensor, fractions: Tensor) -> Tensor:
        made: Tensor = self.inner(x, (fractions * x.shape[1]).round().long())
        return made


class Image(Other):
    """(batch, 1, height, width), as in OCR; the width is the time."""

    def forward(self, image: Tensor, lengths: Tensor) -> Tensor:
        made: Tensor = self.inner(image[:, 0].transpose(1, 2), lengths)
        return made


class Unpadded(Other):
    def forward(self, clips: list[Tensor]) -> Tensor:
        made: Tensor = self.inner(
            nn.utils.rnn.pad_sequence(clips, batch_first=True), torch.tensor([len(clip) for clip in clips])
        )
        return made


class LossInside(Other):
    """Computes its loss itself and returns nothing else."""

    def forward(self, x: Tensor, lengths: Tensor, targets: Tensor, target_lengths: Tensor) -> Tensor:
        frames = (lengths + 1) // 2
        return nn.functional.ctc_loss(self.inner(x, lengths), targets, frames, target_lengths)


class Eager(Other):
    """In eval mode it gives probabilities, as it is done for export."""

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        made: Tensor = self.inner(x, lengths)
        return made if self.training else made.exp()


Call = Callable[[nn.Module, Given], Any]
FORMS: dict[str, tuple[type[Other], Call]] = {
    "time first": (TimeFirst, lambda model, given: model(given["x"].transpose(0, 1), given["lengths"])),
    "keywords and a list of lengths": (
        Keywords,
        lambda model, given: model(
            features=given["x"], feature_lengths=given["lengths"].tolist(), device=given["x"].device
        ).logits.transpose(0, 1),
    ),
    "one dict": (
        OneDict,
        lambda model, given: model(
            UserDict(names=[chr(97 + int(n) % 26) for n in given["lengths"]], speech=(given["x"], given["lengths"]))
        )["scores"][0].permute(2, 0, 1),
    ),
    "a mask": (Mask, lambda model, given: model(given["x"], ~valid(given["x"], given["lengths"]))),
    "fractions": (Fractions, lambda model, given: model(given["x"], given["lengths"] / given["x"].shape[1])),
    "images": (Image, lambda model, given: model(given["x"].transpose(1, 2)[:, None], given["lengths"])),
    "probabilities in eval mode": (Eager, lambda model, given: model(given["x"], given["lengths"])),
}  # fmt: skip


class Called(Loop):
    """Calls the model in a form of FORMS."""

    def __init__(self, form: str, mixed: bool, seed: int) -> None:
        torch.manual_seed(seed)
        kind, self.call = FORMS[form]
        super().__init__(kind(mixed), seed, frames=80, subsampling=2)

    def log_probs(self, given: Given) -> Tensor:
        made: Tensor = self.call(self.model, given)
        return made


def guarded(loop: Loop, steps: int = 1) -> Watch:
    with watch(probe_model=True, on_error="log", on_warning="log", run_dir="run") as guard:
        loop.run(steps)
    return guard


def said(guard: Watch) -> str:
    text: str = guard.guard.end_fields["probe_model"]
    return text


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("form", FORMS)
def test_inputs_of_every_form(form: str, seed: int) -> None:
    right = guarded(Called(form, mixed=False, seed=seed))
    assert right.findings == []
    assert said(right).startswith(f"{FORMS[form][0].__name__} ran 2 times (")
    assert "not changed" not in said(right)
    wrong = guarded(Called(form, mixed=True, seed=seed))
    assert [(finding.code, finding.cause) for finding in wrong.findings] == [("CTC801", "reshape-instead-of-transpose")]


def test_clips_that_the_model_pads_itself() -> None:
    class Clips(Loop):
        def log_probs(self, given: Given) -> Tensor:
            made: Tensor = self.model([x[:n] for x, n in zip(given["x"], given["lengths"], strict=True)])
            return made

    guard = guarded(Clips(Unpadded(), frames=80, subsampling=2))
    assert said(guard) == "Unpadded not run: it was given no features with a batch axis of 4"


def test_a_model_that_computes_its_loss_itself() -> None:
    class Inside(Loop):
        def loss(self) -> Tensor:
            given = self.utterances()
            loss: Tensor = self.model(given["x"], given["lengths"], given["targets"], torch.full((4,), 5))
            return loss

    for mixed, codes in ((False, []), (True, ["CTC801"])):
        torch.manual_seed(0)
        guard = guarded(Inside(LossInside(mixed), frames=80))
        assert [finding.code for finding in guard.findings] == codes
        assert guard.guard.calls == 1
        assert said(guard).startswith("LossInside ran")


REFUSED: dict[str, tuple[nn.Module, Callable[[Given], tuple[Any, ...]], str]] = {
    "an object": (Plain(lambda x, o: x), lambda given: (given["x"], object()), "it was given a object, and what in it"),
    "as many frames as utterances": (
        Plain(lambda x, n: x), lambda given: (given["x"], 1), "cannot be told apart in features of shape (4, 4, 8)",
    ),
    "no features": (
        nn.Sequential(nn.Embedding(100, 8), nn.Linear(8, CLASSES)),
        lambda given: ((given["x"][..., 0].abs() * 9).long(),), "no features with a batch axis of 4",
    ),
    "nothing but zeros": (
        Plain(lambda x, n: x * 0), lambda given: (given["x"], 1), "from frame to frame by no more than rounding",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_run_is_said_and_nothing_else(name: str) -> None:
    model, arguments, reason = REFUSED[name]

    class Odd(Loop):
        def log_probs(self, given: Given) -> Tensor:
            made: Tensor = self.model(*arguments(given))
            return made if isinstance(model, Plain) else made.log_softmax(-1).transpose(0, 1)

    guard = guarded(Odd(model, frames=4 if "as many" in name else 40))
    assert not [finding for finding in guard.findings if finding.code >= "CTC8"]
    assert f"{type(model).__name__} not run: " in said(guard)
    assert reason in said(guard)


def test_weights_in_several_processes_are_left_alone() -> None:
    model = Plain(lambda x, lengths: x - x.mean(0, True))
    model.head.weight.to_local = None  # type: ignore[attr-defined]
    guard = guarded(Loop(model))
    assert said(guard) == "Plain not run: its weights are spread over several processes"


def test_without_a_step_of_an_optimizer_it_is_said_that_nothing_ran() -> None:
    loop = Loop(Plain(lambda x, lengths: x))
    with watch(probe_model=True) as guard:
        loop.loss().backward()
    assert said(guard) == "not run: no optimizer of torch stepped after a training call"
    assert nn.Module.__call__ is nn.Module._wrapped_call_impl


def test_a_function_is_no_model() -> None:
    class Functional(Loop):
        def log_probs(self, given: Given) -> Tensor:
            weight = next(self.model.parameters())
            return (given["x"] @ weight.t()).log_softmax(-1).transpose(0, 1)

    guard = guarded(Functional(nn.Linear(8, CLASSES)))
    assert said(guard) == "not run: no module was called that made the scores of the loss"


def test_a_time_axis_that_cannot_grow() -> None:
    class Positions(nn.Module):
        """Learnt positions, as many as there are frames."""

        def __init__(self) -> None:
            super().__init__()
            self.inner, self.positions = Transformer(norm_first=True), nn.Parameter(torch.randn(40, 8))

        def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
            made: Tensor = self.inner(x + self.positions, lengths)
            return made

    guard = guarded(Loop(Positions()))
    assert guard.findings == []
    assert said(guard).startswith("Positions ran 3 times")
    assert "padding not changed: RuntimeError: The size of tensor" in said(guard)


def test_positions_that_may_end_before_the_padding() -> None:
    class Positions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.positions = Transformer(norm_first=True), nn.Embedding(41, 8)

        def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
            made: Tensor = self.inner(x + self.positions(torch.arange(x.shape[1])), lengths)
            return made

    guard = guarded(Loop(Positions()))
    assert guard.findings == []
    assert said(guard).startswith("Positions ran 2 times")
    assert said(guard).endswith("padding not changed: it has an embedding of 41, which may be positions")


def test_a_head_that_computes_the_loss_and_the_encoder_before_it() -> None:
    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(16, CLASSES)

        def forward(self, x: Tensor, lengths: Tensor, targets: Tensor) -> Tensor:
            log_probs = self.layer(x).log_softmax(-1).transpose(0, 1)
            return nn.functional.ctc_loss(log_probs, targets, lengths, torch.full((4,), 5), zero_infinity=True)

    class InParts(Loop):
        def loss(self) -> Tensor:
            given = self.utterances()
            encoder, head = self.model.children()
            loss: Tensor = head(encoder(given["x"])[0], given["lengths"], given["targets"])
            return loss

    guard = guarded(InParts(nn.ModuleList([nn.LSTM(8, 16), Head()])))
    assert [part.split(" (")[0] for part in said(guard).split(" | ")] == ["LSTM ran 4 times", "Head ran 2 times"]
    assert [(finding.code, finding.source) for finding in guard.findings] == [("CTC801", "LSTM.forward")]


@pytest.fixture
def _one_process() -> Iterator[None]:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    torch.distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", world_size=1, rank=0)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("_one_process")
@pytest.mark.parametrize("mixed", [False, True])
def test_through_distributed_data_parallel(mixed: bool) -> None:
    loop = Called("time first", mixed, 0)
    loop.model = nn.parallel.DistributedDataParallel(loop.model)
    guard = guarded(loop, 2)
    assert said(guard).startswith("TimeFirst ran 4 times" if mixed else "TimeFirst ran 2 times")
    assert [finding.code for finding in guard.findings] == ["CTC801"] * mixed


def in_place(model: nn.Module) -> nn.Module:
    model.compile(backend="aot_eager")
    return model


@pytest.mark.filterwarnings("ignore:.*grad attribute of a Tensor that is not a leaf.*")
@pytest.mark.parametrize(
    "compiled", [lambda model: torch.compile(model, backend="aot_eager"), in_place], ids=["torch.compile", "compile()"]
)
def test_compiled_models_are_compiled_as_without_and_run_as_they_are(compiled: Callable[[nn.Module], Any]) -> None:
    from torch._dynamo.utils import counters

    seen = []
    for probing in (False, True):
        torch.manual_seed(0)
        torch._dynamo.reset()
        counters.clear()
        loop = Loop(Plain(lambda x, lengths: x - x.mean(0, True)))
        loop.model = compiled(loop.model)
        with watch(probe_model=probing, on_error="log") as guard:
            loop.run(3)
        seen.append((loop.losses, dict(counters["stats"]), dict(counters["frames"])))
        assert [finding.code for finding in guard.findings] == ["CTC801"] * probing
    assert seen[0] == seen[1]
    assert said(guard).startswith("Plain ran 4 times")


# The real Trainer.

SMALL: dict[str, Any] = {
    "vocab_size": CLASSES, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 16, "pad_token_id": 0, "ctc_loss_reduction": "mean", "layerdrop": 0.3,
    "mask_time_prob": 0.3, "mask_time_length": 2,
}  # fmt: skip
WAVES: dict[str, Any] = {
    "conv_dim": (16, 16), "conv_stride": (8, 4), "conv_kernel": (10, 3), "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 4,
}  # fmt: skip
BERT: dict[str, Any] = {"feature_projection_input_dim": 8, "conv_depthwise_kernel_size": 7}


def waves(**options: Any) -> Any:
    return Wav2Vec2ForCTC(Wav2Vec2Config(**{**SMALL, **WAVES, **options}))


def bert(**options: Any) -> Any:
    return Wav2Vec2BertForCTC(Wav2Vec2BertConfig(**{**SMALL, **BERT, **options}))


def conformer() -> Any:
    return Wav2Vec2ConformerForCTC(Wav2Vec2ConformerConfig(**{**SMALL, **WAVES, "feat_extract_norm": "layer"}))


class MixingForCTC(Wav2Vec2ForCTC):
    """Its own head mixes utterances."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.lm_head = nn.Sequential(Reshape(), self.lm_head)


class Reshape(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return mixes(x)


class Collate:
    def __init__(self, mask: bool) -> None:
        self.mask = mask

    def __call__(self, items: list[Given]) -> Given:
        name = next(iter(items[0]))
        features = nn.utils.rnn.pad_sequence([item[name] for item in items], batch_first=True)
        mask = torch.arange(features.shape[1]) < torch.tensor([len(item[name]) for item in items])[:, None]
        masked = {"attention_mask": mask.long()} if self.mask else {}
        return {name: features, "labels": torch.stack([item["labels"] for item in items]), **masked}


def trained(model: Any, guard: CTCGuard | None, mask: bool = True, seed: int = 0, **options: Any) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    is_bert, data = isinstance(model, Wav2Vec2BertForCTC), []
    for i in range(12):
        length = 80 - 8 * (i % 4) if is_bert else 1600 - 200 * (i % 4)
        x = torch.randn((length, 8) if is_bert else (length,), generator=generator)
        labels = torch.randint(1, CLASSES, (4,), generator=generator)
        data.append({"input_features" if is_bert else "input_values": x, "labels": labels})
    arguments = {
        "output_dir": "out", "per_device_train_batch_size": 4, "max_steps": 3, "report_to": [], "disable_tqdm": True,
        "use_cpu": True, "save_strategy": "no", "logging_steps": 1, "seed": seed,
    }  # fmt: skip
    trainer = Trainer(
        model, TrainingArguments(**{**arguments, **options}), train_dataset=data, data_collator=Collate(mask)
    )
    if guard is not None:
        trainer.add_callback(guard)
    trainer.train()
    return {name: value.clone() for name, value in model.state_dict().items()}


def seeded(make: Callable[[], Any], seed: int) -> Any:
    torch.manual_seed(seed)
    return make()


HEALTHY: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "layer norm, mask": (lambda: waves(feat_extract_norm="layer", do_stable_layer_norm=True), {}),
    "group norm, no mask": (waves, {"mask": False}),
    "bert, mask": (bert, {}),
    "bert, no mask": (bert, {"mask": False}),
    "bert, bf16": (bert, {"bf16": True}),
    "gradient checkpointing": (lambda: waves(feat_extract_norm="layer"), {"activation_checkpointing": True}),
    "batches of one": (bert, {"per_device_train_batch_size": 1}),
}


@pytest.mark.filterwarnings("ignore:.*of the inputs have requires_grad.*")
@pytest.mark.parametrize(("seed", "name"), list(enumerate(HEALTHY)))
def test_models_of_transformers_are_silent_and_train_bit_for_bit(seed: int, name: str) -> None:
    make, options = HEALTHY[name]
    guard = CTCGuard(probe_model=True, on_error="log", on_warning="log")
    guarded_weights = trained(seeded(make, seed), guard, seed=seed, **options)
    plain = trained(seeded(make, seed), None, seed=seed, **options)
    assert guard.watch is not None
    assert [finding for finding in guard.watch.findings if finding.code >= "CTC8"] == []
    assert "ForCTC ran 2 times" in said(guard.watch)
    assert all(torch.equal(value, guarded_weights[name]) for name, value in plain.items())


@pytest.mark.parametrize(
    ("make", "mask", "cause", "evidence"),
    [
        (waves, True, "normalisation-over-padding", "conv_layers.0.layer_norm (GroupNorm)"),
        (conformer, True, "unmasked-convolution", "conv_module.depthwise_conv (Conv1d)"),
    ],
)
def test_models_of_transformers_that_do_depend_on_padding(make: Any, mask: bool, cause: str, evidence: str) -> None:
    guard = CTCGuard(probe_model=True, on_error="log", on_warning="log")
    trained(seeded(make, 0), guard, mask)
    assert guard.watch is not None
    (finding,) = [finding for finding in guard.watch.findings if finding.code >= "CTC8"]
    assert (finding.code, finding.cause) == ("CTC802", cause)
    assert evidence in finding.evidence


def test_group_norm_without_a_mask_is_meant_so() -> None:
    """A loop that takes the lengths from the clips; the model is not told of them, as its makers want it."""

    class Waves(Loop):
        def log_probs(self, given: Given) -> Tensor:
            logits: Tensor = self.model(given["x"].repeat_interleave(5, 1).flatten(1)).logits
            return logits.log_softmax(-1).transpose(0, 1)

        def loss(self) -> Tensor:
            given = self.utterances()
            frames = self.model._get_feat_extract_output_lengths(given["lengths"] * 40)  # type: ignore[operator]
            return nn.functional.ctc_loss(self.log_probs(given), given["targets"], frames, torch.full((4,), 5))

    for seed in range(3):
        guard = guarded(Waves(seeded(waves, seed), seed))
        assert [(f.code, f.cause, f.severity.value) for f in guard.findings] == [
            ("CTC802", "normalisation-over-padding", "information")
        ]
        assert "are meant so" in guard.findings[0].fix


def test_a_wrong_head_ends_training_before_the_weights_move() -> None:
    model = seeded(lambda: MixingForCTC(Wav2Vec2Config(**{**SMALL, **WAVES, "feat_extract_norm": "layer"})), 0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(CTCVerdictError, match=r"(?s)CTC801 batch-leak.*reshape-instead-of-transpose"):
        trained(model, CTCGuard(probe_model=True), gradient_accumulation_steps=2)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_stop_throws_the_step_away() -> None:
    model = seeded(lambda: MixingForCTC(Wav2Vec2Config(**{**SMALL, **WAVES, "feat_extract_norm": "layer"})), 0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    guard = CTCGuard(probe_model=True, on_error="stop")
    after = trained(model, guard)
    assert guard.watch is not None
    assert [verdict.code for verdict in guard.watch.verdicts] == ["CTC801"]
    assert all(torch.equal(value, before[name]) for name, value in after.items())


def test_the_setting_survives_a_resume() -> None:
    assert CTCGuard(probe_model=True).state()["args"] == {"probe_model": True}
