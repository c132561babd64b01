"""CTC801, CTC802 and CTC803 in real loops: right models are silent after two passes, wrong ones are told by cause."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ctcguard import CTCVerdictError, watch
from ctcguard_integrations.torch_loop import Watch
from tests.integrations.recognisers import CLASSES, FEATURES, Loop, Plain, Recurrent, Transformer, valid

Make = Callable[[], nn.Module]
SEEDS = range(3)


def probed(make: Make, seed: int = 0, steps: int = 2, loop: type[Loop] = Loop, **options: Any) -> Watch:
    """The guard after a short training of which nothing is raised."""
    torch.manual_seed(seed)
    equal = options.pop("equal", False)
    running = loop(make(), seed, **options)
    running.equal = equal
    with watch(probe_model=True, on_error="log", on_warning="log", run_dir="run") as guard:
        running.run(steps)
    return guard


def said(guard: Watch) -> str:
    """What the last line of findings.jsonl says of the probe."""
    text: str = json.loads(Path("run/findings.jsonl").read_text().splitlines()[-1])["probe_model"]
    assert text == guard.guard.end_fields["probe_model"]
    return text


def found(guard: Watch) -> list[tuple[str, str, str]]:
    return [(finding.code, finding.cause, finding.severity.value) for finding in guard.findings]


def recurrent(**options: Any) -> Make:
    return lambda: Recurrent(**options)


def transformer(**options: Any) -> Make:
    return lambda: Transformer(**options)


def plain(inside: Callable[[Tensor, Tensor], Tensor]) -> Make:
    return lambda: Plain(inside)


def masked_mean(x: Tensor, lengths: Tensor) -> Tensor:
    return (x * valid(x, lengths)[..., None]).sum(1, keepdim=True) / lengths[:, None, None]


HEALTHY: dict[str, tuple[Make, dict[str, Any]]] = {
    "convolutions and a packed BiLSTM": (recurrent(), {"subsampling": 2, "frames": 80}),
    "all utterances as long as each other": (recurrent(), {"subsampling": 2, "frames": 80, "equal": True}),
    "two utterances": (recurrent(), {"subsampling": 2, "frames": 80, "batch": 2}),
    "an odd batch": (recurrent(), {"subsampling": 2, "frames": 80, "batch": 5}),
    "one utterance": (recurrent(), {"subsampling": 2, "frames": 80, "batch": 1}),
    "transformer, post-norm, nested tensors": (transformer(), {}),
    "transformer, pre-norm": (transformer(norm_first=True), {}),
    "frame by frame": (plain(lambda x, lengths: x), {}),
    "a masked mean over time": (plain(lambda x, n: x - masked_mean(x, n)), {}),
}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", HEALTHY)
def test_right_models_are_silent_after_two_passes(name: str, seed: int) -> None:
    make, options = HEALTHY[name]
    guard = probed(make, seed, **options)
    assert found(guard) == []
    assert "ran 2 times" in said(guard)
    assert "not run" not in said(guard)


def view_as_transpose(x: Tensor) -> Tensor:
    """The classic: (batch, time, values) should become (time, batch, values)."""
    return x.reshape(x.shape[1], x.shape[0], x.shape[2]).transpose(0, 1)


def attention_over_batch(x: Tensor, lengths: Tensor) -> Tensor:
    return torch.einsum("btd,ctd->tbc", x, x).softmax(-1).transpose(0, 1) @ x.transpose(0, 1)[0][None]


class BatchNorm(nn.Module):
    """With statistics of the batch in eval mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(16, track_running_stats=False)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        normal: Tensor = self.norm(x.transpose(1, 2)).transpose(1, 2)
        return normal


LEAKS: dict[str, tuple[Make, dict[str, Any], str, str, str]] = {
    "view before a packed LSTM": (
        recurrent(before=view_as_transpose), {"subsampling": 2, "frames": 80},
        "reshape-instead-of-transpose", "(4, 40, 24) into (40, 4, 24)", "(0, 1) instead of x.reshape(40, 4, 24)",
    ),
    "view behind the head": (
        recurrent(packed=False, after=view_as_transpose), {"subsampling": 2, "frames": 80},
        "reshape-instead-of-transpose", "(4, 40, 12) into (40, 4, 12)", "(0, 1) instead of x.reshape(40, 4, 12)",
    ),
    "LSTM without batch_first": (
        recurrent(packed=False, batch_first=False), {"subsampling": 2, "frames": 80},
        "wrong-batch-axis", "first seen in rnn (LSTM)", "make it with batch_first=True",
    ),
    "transformer without batch_first": (
        transformer(masked=False, batch_first=False), {},
        "wrong-batch-axis", "encoder.layers.0.self_attn (MultiheadAttention)", "batch_first=True instead of False",
    ),
    "batch statistics": (
        plain(BatchNorm()), {}, "normalisation-over-batch", "inside.norm (BatchNorm1d)", "track_running_stats=True",
    ),
    "softmax over the batch": (
        plain(lambda x, lengths: x * x.softmax(0)), {},
        "mixes-utterances", "what head (Linear) is given", "before head (Linear), in the model (Plain)",
    ),
    "mean over the batch": (plain(lambda x, lengths: x - x.mean(0, True)), {}, "mixes-utterances", "before", "mean"),
    "attention over the batch": (
        plain(attention_over_batch), {}, "mixes-utterances", "before, in the code of the model", "batch axis",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LEAKS)
def test_leaks_between_utterances(name: str) -> None:
    make, options, cause, evidence, fix = LEAKS[name]
    for seed in SEEDS:
        guard = probed(make, seed, **options)
        assert found(guard) == [("CTC801", cause, "error")]
        (finding,) = guard.findings
        assert evidence in finding.evidence
        assert fix in finding.fix
        assert "nats (rounding (float32): at most" in finding.message
        assert {utterance.index for utterance in finding.utterances} == {0, 2}
        assert "ran 4 times" in said(guard)


@pytest.mark.parametrize("batch", [2, 3, 8])
def test_leaks_in_batches_of_other_sizes(batch: int) -> None:
    guard = probed(recurrent(packed=False, batch_first=False), batch=batch, subsampling=2, frames=80)
    assert found(guard) == [("CTC801", "wrong-batch-axis", "error")]


def test_a_batch_of_one_cannot_leak() -> None:
    guard = probed(plain(lambda x, lengths: x - x.mean(0, True) + x), batch=1)
    assert found(guard) == []
    assert "neighbours not changed: there was one utterance" in said(guard)


class InstanceNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.InstanceNorm1d(16)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        normal: Tensor = self.norm(x.transpose(1, 2)).transpose(1, 2)
        return normal


class Convolutions(nn.Module):
    """Bias and activation put something into padded frames; the next one looks at it, 12 frames away."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(16, 16, 25, padding=12)
        self.second = nn.Conv1d(16, 16, 25, padding=12)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        return torch.tanh(self.second(torch.tanh(self.first(x.transpose(1, 2))))).transpose(1, 2)


def attention(x: Tensor, lengths: Tensor) -> Tensor:
    return (x @ x.transpose(1, 2)).softmax(-1) @ x


PADDING: dict[str, tuple[Make, str, str, str]] = {
    "transformer without a mask": (
        transformer(masked=False), "no-attention-mask", "encoder.layers.0", "src_key_padding_mask",
    ),
    "transformer without a mask, time first": (
        lambda: TimeFirst(), "no-attention-mask", "encoder.layers.0.self_attn", "a mask of the padded frames",
    ),
    "norm over time": (
        plain(InstanceNorm()), "normalisation-over-padding", "inside.norm (InstanceNorm1d)", "LayerNorm",
    ),
    "wide convolutions": (plain(Convolutions()), "unmasked-convolution", "(Conv1d)", "put 0 into the padded frames"),
    "attention of one's own": (plain(attention), "padding-changes-output", "what head (Linear) is given", "in the"),
    "mean over time": (plain(lambda x, n: x - x.mean(1, True)), "padding-changes-output", "before", "similar length"),
}  # fmt: skip


class TimeFirst(Transformer):
    """Right about its axes, but it has no mask."""

    def __init__(self) -> None:
        super().__init__(masked=False, batch_first=False)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        log_probs: Tensor = self.head(self.encoder(self.features(x).transpose(0, 1))).log_softmax(-1)
        return log_probs


@pytest.mark.parametrize("name", PADDING)
def test_outputs_that_depend_on_padding(name: str) -> None:
    make, cause, evidence, fix = PADDING[name]
    for seed in SEEDS:
        guard = probed(make, seed)
        ((code, slug, severity),) = found(guard)
        assert (code, slug) == ("CTC802", cause)
        (finding,) = guard.findings
        changed = finding.message.rpartition("; ")[2]
        assert severity == ("information" if changed.startswith("0 of ") else "warning")
        assert evidence in finding.evidence
        assert fix in finding.fix
        assert "frames of padding more" in finding.message
        assert "ran 4 times" in said(guard)


def test_an_unpacked_rnn_whose_last_frames_change_is_information() -> None:
    guard = probed(recurrent(packed=False), subsampling=2, frames=200)
    assert found(guard) == [("CTC802", "bidirectional-rnn-unpacked", "information")]
    assert guard.findings[0].evidence == "rnn (LSTM) is given a plain tensor, not a packed one"
    assert "pack_padded_sequence" in guard.findings[0].fix
    assert "the last ones change" in guard.findings[0].message


def test_padding_that_the_run_never_meets_is_not_tried() -> None:
    class NoLengths(Loop):
        def log_probs(self, given: dict[str, Tensor]) -> Tensor:
            made: Tensor = self.model(given["x"])
            return made

    class Attention(Plain):
        def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
            return super().forward(x, torch.zeros(0))

    guard = probed(lambda: Attention(attention), loop=NoLengths, equal=True)
    assert found(guard) == []
    assert "padding not changed: the batch has none, and the model is not told lengths" in said(guard)
    assert [finding.code for finding in probed(lambda: Attention(attention), loop=NoLengths).findings] == ["CTC802"]


class ListOfModules(nn.Module):
    """A plain list: ``model.eval()`` does not reach the dropout in it."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = [nn.Dropout(0.2)]

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        dropped: Tensor = self.layers[0](x)
        return dropped


class SwitchedOn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.2)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        dropped: Tensor = self.drop.train()(x)
        return dropped


class Counts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        self.calls += 1
        return x * (1 + 0.1 * self.calls)


def own_attention(x: Tensor, lengths: Tensor) -> Tensor:
    mask = valid(x, lengths)[:, None]
    return nn.functional.scaled_dot_product_attention(x, x, x, attn_mask=mask, dropout_p=0.2)


NOISY: dict[str, tuple[Make, str, str]] = {
    "dropout as a function": (
        plain(lambda x, n: nn.functional.dropout(x, 0.2)), "dropout-in-evaluation", "in the model (Plain) at ",
    ),
    "attention with dropout": (plain(own_attention), "dropout-in-evaluation", "in the model (Plain) at "),
    "a list of modules": (plain(ListOfModules()), "module-in-training-mode", "outside of the model (Dropout)"),
    "train() in forward": (plain(SwitchedOn()), "module-in-training-mode", "in inside.drop (Dropout)"),
    "SpecAugment": (
        plain(lambda x, n: x * (torch.rand(len(x), 1, 16) > 0.2)), "random-in-evaluation", "rand draws random numbers",
    ),
    "numpy": (plain(lambda x, n: x * float(np.random.rand())), "random-in-evaluation", "numpy.random draws"),
    "Python": (plain(lambda x, n: x * random.random()), "random-in-evaluation", "random draws"),
    "a counter": (plain(Counts()), "keeps-state", "no random number was drawn"),
}  # fmt: skip


@pytest.mark.parametrize("name", NOISY)
def test_two_evaluations_that_differ(name: str) -> None:
    make, cause, evidence = NOISY[name]
    for seed in SEEDS:
        guard = probed(make, seed)
        assert found(guard) == [("CTC803", cause, "warning")]
        assert evidence in guard.findings[0].evidence
        assert "ran 3 times" in said(guard)
    if " at " in evidence:
        assert "test_torch_model.py:" in guard.findings[0].evidence


def test_an_error_is_raised_before_the_weights_move() -> None:
    torch.manual_seed(0)
    loop = Loop(Recurrent(packed=False, batch_first=False), subsampling=2, frames=80)
    before = [weight.detach().clone() for weight in loop.model.parameters()]
    with pytest.raises(CTCVerdictError, match="CTC801 batch-leak") as caught, watch(probe_model=True):
        loop.run()
    root = caught.value.verdict.root
    assert (root.step, root.source) == (0, "Recurrent.forward")
    assert "recognisers.py" in root.call_site
    assert all(torch.equal(a, b) for a, b in zip(before, loop.model.parameters(), strict=True))
    assert nn.Module.__call__ is nn.Module._wrapped_call_impl


def test_nothing_is_run_unless_it_is_asked_for() -> None:
    calls = []

    class Counted(Recurrent):
        def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
            calls.append(self.training)
            return super().forward(x, lengths)

    loop = Loop(Counted(packed=False, batch_first=False), subsampling=2, frames=80)
    with watch(run_dir="run") as guard:
        loop.run(3)
    assert calls == [True] * 3
    assert guard.findings == []
    assert "probe_model" not in json.loads(Path("run/findings.jsonl").read_text().splitlines()[-1])


def test_once_in_a_run_and_only_in_training() -> None:
    calls = []

    class Counted(Recurrent):
        def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
            calls.append(self.training)
            return super().forward(x, lengths)

    loop = Loop(Counted(), subsampling=2, frames=80)
    with watch(probe_model=True) as guard:
        loop.model.eval()
        with torch.no_grad():
            loop.loss()
        loop.model.train()
        for _ in range(3):
            loop.step(accumulate=2)
    assert calls == [False, True, True, False, False, True, True, True, True]
    assert guard.findings == []


class InParts(Loop):
    """Encoder and head are called one after the other."""

    def log_probs(self, given: dict[str, Tensor]) -> Tensor:
        encoder, head = self.model.children()
        logits: Tensor = head(encoder(given["x"])[0])
        return logits.log_softmax(-1).transpose(0, 1)


def test_every_part_of_a_model_is_run() -> None:
    guard = probed(lambda: nn.ModuleList([nn.LSTM(FEATURES, 16), nn.Linear(16, CLASSES)]), loop=InParts)
    assert found(guard) == [("CTC801", "wrong-batch-axis", "error")]
    assert guard.findings[0].source == "LSTM.forward"
    assert "in the unit of its output" in guard.findings[0].message
    assert [part.split()[0] for part in said(guard).split(" | ")] == ["LSTM", "Linear"]


def test_what_a_user_observes() -> None:
    class Observed(Loop):
        def loss(self) -> Tensor:
            given = self.utterances()
            log_probs = self.log_probs(given)
            lengths = {"input_lengths": given["lengths"], "target_lengths": [5] * self.batch}
            guard.observe(log_probs=log_probs, targets=given["targets"], blank=0, batch_first=False, **lengths)
            return -log_probs[..., 1].mean()

    torch.manual_seed(0)
    loop = Observed(Plain(lambda x, lengths: nn.functional.dropout(x, 0.2)))
    with watch(probe_model=True, on_warning="log") as guard:
        loop.run()
    assert [finding.code for finding in guard.findings] == ["CTC803"]
