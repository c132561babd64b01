"""Ways to train that are right although unusual: optimizers, schedules, several losses, several models, evaluation."""

from __future__ import annotations

import copy
import math
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, Dataset

from tests.clean.lab import Batch, Lab, Table, Tensor, Weights

healthy = Table()


@pytest.mark.parametrize(("title", "seed"), healthy.rows)
def test_stays_silent(title: str, seed: int) -> None:
    healthy.check(title, seed)


# ----------------------------------------------------------------------------------------------------------- optimizers

OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.1),
    "SGD with momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "Adam, fused": lambda p: torch.optim.Adam(p, lr=1e-2, fused=True),
    "Adam, foreach": lambda p: torch.optim.Adam(p, lr=1e-2, foreach=True),
    "Adadelta": lambda p: torch.optim.Adadelta(p),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=1e-3),
    "Adagrad": lambda p: torch.optim.Adagrad(p, lr=1e-2),
    "NAdam": lambda p: torch.optim.NAdam(p, lr=1e-2),
    "Adafactor": lambda p: torch.optim.Adafactor(p, lr=1e-2),
    "one update impossible: lr 0": lambda p: torch.optim.AdamW(p, lr=0.0),
}
for title, make in OPTIMIZERS.items():

    def with_optimizer(seed: int, make: Callable[[Any], torch.optim.Optimizer] = make) -> Weights:
        lab = Lab(seed)
        lab.optimizer = make(lab.model.parameters())
        for batch in lab.batches(12):
            lab.update(lab.loss(batch))
        return lab.weights()

    healthy(title)(with_optimizer)


def lbfgs(zero_grad_after: bool) -> Callable[[int], Weights]:
    def case(seed: int) -> Weights:
        lab = Lab(seed)
        batch = lab.batch()
        optimizer = torch.optim.LBFGS(lab.model.parameters(), lr=0.1, max_iter=4)

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = lab.loss(batch)
            loss.backward()
            return loss

        for _ in range(10):
            optimizer.step(closure)
            if zero_grad_after:
                optimizer.zero_grad()
        return lab.weights()

    return case


healthy("LBFGS", seeds=2)(lbfgs(zero_grad_after=False))
healthy("LBFGS, gradients thrown away between the steps", seeds=2)(lbfgs(zero_grad_after=True))


@healthy(seeds=2)
def closure_of_an_ordinary_optimizer(seed: int) -> Weights:
    lab = Lab(seed)
    for batch in lab.batches(10):

        def closure(batch: Batch = batch) -> Tensor:
            lab.optimizer.zero_grad(set_to_none=False)
            loss = lab.loss(batch)
            loss.backward()
            return loss

        lab.optimizer.step(closure)
        lab.optimizer.zero_grad()
    return lab.weights()


class Sam(torch.optim.Optimizer):
    """Sharpness-aware minimisation: up the gradient, a second loss there, down from where it began."""

    def __init__(self, parameters: Any, base: torch.optim.Optimizer) -> None:
        super().__init__(parameters, {})
        self.base = base

    @torch.no_grad()
    def climb(self) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p]["old"] = p.clone()
                p.add_(p.grad, alpha=0.01)
        self.zero_grad()

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            for p in group["params"]:
                p.copy_(self.state[p]["old"])
        self.base.step()
        self.zero_grad()


@healthy(seeds=2)
def sharpness_aware(seed: int) -> Weights:
    lab = Lab(seed)
    sam = Sam(lab.model.parameters(), lab.optimizer)
    for batch in lab.batches(10):
        lab.loss(batch).backward()
        sam.climb()
        lab.loss(batch).backward()
        sam.step()
    return lab.weights()


@healthy(seeds=2)
def optimizers_inside_the_backward_pass(seed: int) -> Weights:
    """Each parameter is updated as soon as its gradient is there, and the gradient is thrown away."""
    lab = Lab(seed)
    optimizers = {p: torch.optim.SGD([p], lr=0.05) for p in lab.model.parameters()}

    def update(p: Tensor) -> None:
        optimizers[p].step()
        optimizers[p].zero_grad()

    for p in lab.model.parameters():
        p.register_post_accumulate_grad_hook(update)
    for batch in lab.batches(10):
        lab.loss(batch).backward()
    return lab.weights()


@healthy(seeds=2)
def encoder_and_head_have_optimizers_of_their_own(seed: int) -> Weights:
    lab = Lab(seed)
    both = [torch.optim.Adam(lab.encoder.parameters(), lr=1e-3), torch.optim.SGD(lab.head.parameters(), lr=0.1)]
    for batch in lab.batches(12):
        for optimizer in both:
            optimizer.zero_grad()
        lab.loss(batch).backward()
        for optimizer in both:
            optimizer.step()
    return lab.weights()


@healthy(seeds=2)
def encoder_and_head_take_turns(seed: int) -> Weights:
    lab = Lab(seed)
    both = [torch.optim.Adam(lab.encoder.parameters(), lr=1e-3), torch.optim.SGD(lab.head.parameters(), lr=0.1)]
    for step, batch in enumerate(lab.batches(16)):
        lab.model.zero_grad()
        lab.loss(batch).backward()
        both[step % 2].step()
    return lab.weights()


@healthy(seeds=2)
def the_head_steps_only_now_and_then(seed: int) -> Weights:
    """Gradients of the head gather over eight batches, those of the encoder are used at once."""
    lab = Lab(seed)
    encoder, head = torch.optim.Adam(lab.encoder.parameters()), torch.optim.SGD(lab.head.parameters(), lr=0.1)
    for step, batch in enumerate(lab.batches(24)):
        encoder.zero_grad()
        lab.loss(batch).backward()
        encoder.step()
        if step % 8 == 7:
            head.step()
            head.zero_grad()
    return lab.weights()


@healthy(seeds=2)
def a_group_added_to_the_optimizer_later(seed: int) -> Weights:
    """First the head alone, then everything."""
    lab = Lab(seed)
    lab.optimizer = torch.optim.AdamW(lab.head.parameters())
    lab.encoder.requires_grad_(False)
    for step, batch in enumerate(lab.batches(16)):
        if step == 8:
            lab.encoder.requires_grad_(True)
            lab.optimizer.add_param_group({"params": list(lab.encoder.parameters()), "lr": 1e-4})
        lab.update(lab.loss(batch))
    return lab.weights()


# ------------------------------------------------------------------------------------------- schedules, clipping, scale


@healthy(seeds=3)
def accumulation_with_clipping(seed: int) -> Weights:
    lab = Lab(seed)
    for batches in zip(*[lab.batches(48)] * 4, strict=True):
        lab.optimizer.zero_grad()
        for batch in batches:
            (lab.loss(batch) / 4).backward()
        torch.nn.utils.clip_grad_norm_(lab.model.parameters(), 0.5)
        lab.optimizer.step()
    return lab.weights()


@healthy(seeds=2)
def many_losses_in_one_backward(seed: int) -> Weights:
    lab = Lab(seed)
    for batches in zip(*[lab.batches(36)] * 3, strict=True):
        losses = [lab.loss(batch) for batch in batches]
        lab.update(torch.stack(losses).sum())
    return lab.weights()


@healthy(seeds=3)
def warm_up_from_exactly_zero_and_a_spike(seed: int) -> Weights:
    lab = Lab(seed, lr=1.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(lab.optimizer, lambda step: 0.0 if step < 5 else (step - 5) / 10)
    for batch in lab.batches(30):
        lab.update(lab.loss(batch))
        schedule.step()
    return lab.weights()


@healthy(seeds=3)
def far_too_high_a_rate_at_first(seed: int) -> Weights:
    lab = Lab(seed)
    lab.optimizer = torch.optim.SGD(lab.model.parameters(), lr=50.0)
    schedule = torch.optim.lr_scheduler.ExponentialLR(lab.optimizer, 0.7)
    for batch in lab.batches(25):
        lab.update(lab.loss(batch, reduction="sum"))
        schedule.step()
    return lab.weights()


@healthy(seeds=2)
def restarts_of_the_rate(seed: int) -> Weights:
    lab = Lab(seed, lr=0.3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(lab.optimizer, T_0=5, eta_min=0)
    for batch in lab.batches(25):
        lab.update(lab.loss(batch))
        schedule.step()
    return lab.weights()


@healthy(seeds=2)
def scale_of_the_loss_by_hand(seed: int) -> Weights:
    lab = Lab(seed)
    for batch in lab.batches(12):
        lab.optimizer.zero_grad()
        (lab.loss(batch) * 2.0**16).backward()
        for p in lab.model.parameters():
            assert p.grad is not None
            p.grad /= 2.0**16
        lab.optimizer.step()
    return lab.weights()


@healthy(seeds=2)
def overflow_found_and_skipped_by_hand(seed: int) -> Weights:
    lab, scale = Lab(seed), 2.0**127
    for batch in lab.batches(20):
        lab.optimizer.zero_grad()
        (lab.loss(batch, reduction="sum") * scale).backward()
        gradients = [p.grad for p in lab.model.parameters() if p.grad is not None]
        if all(bool(gradient.isfinite().all()) for gradient in gradients):
            torch._foreach_div_(gradients, scale)
            lab.optimizer.step()
        else:
            scale /= 2
    return lab.weights()


@healthy(seeds=2)
def grad_scaler_with_overflows(seed: int) -> Weights:
    lab = Lab(seed)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, growth_interval=3)
    for batch in lab.batches(25):
        lab.optimizer.zero_grad()
        scaler.scale(lab.loss(batch, reduction="sum")).backward()
        scaler.unscale_(lab.optimizer)
        torch.nn.utils.clip_grad_norm_(lab.model.parameters(), 1.0)
        scaler.step(lab.optimizer)
        scaler.update()
    return lab.weights()


@healthy(seeds=2)
def grad_scaler_with_a_fused_optimizer_in_float16(seed: int) -> Weights:
    """The optimizer itself is called with infinite gradients, and skips the step."""
    lab = Lab(seed)
    lab.optimizer = torch.optim.AdamW(lab.model.parameters(), lr=1e-2, fused=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    for batch in lab.batches(25):
        lab.optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.float16):
            log_probs = lab.log_probs(batch.features)
        scaler.scale(lab.ctc(log_probs.float(), batch)).backward()
        scaler.step(lab.optimizer)
        scaler.update()
    return lab.weights()


@healthy(seeds=2)
def batches_with_a_high_loss_are_skipped(seed: int) -> Weights:
    lab = Lab(seed)
    for step, batch in enumerate(lab.batches(20)):
        loss = lab.loss(batch)
        if step % 4 == 0:
            lab.update(loss)
    return lab.weights()


@healthy(seeds=2)
def batches_with_a_high_loss_get_no_gradient(seed: int) -> Weights:
    """The optimizer steps all the same, with nothing to apply."""
    lab = Lab(seed)
    for step, batch in enumerate(lab.batches(24)):
        lab.optimizer.zero_grad()
        loss = lab.loss(batch)
        loss.backward()
        if 6 <= step < 12:
            lab.optimizer.zero_grad()
        lab.optimizer.step()
    return lab.weights()


# ------------------------------------------------------------------------------------------------------- several losses


def hybrid(weight: Callable[[int], float], skip: bool = False, apart: bool = False) -> Callable[[int], Weights]:
    """CTC beside a loss of its own on the same encoder; the weight of CTC follows a schedule."""

    def case(seed: int) -> Weights:
        lab = Lab(seed)
        decoder = torch.nn.Linear(16, 12)
        modules = [lab.encoder, decoder] if apart else [lab.model, decoder]
        parameters = [p for module in modules for p in module.parameters()]
        optimizers = [torch.optim.Adam(parameters, lr=1e-3)]
        optimizers += [torch.optim.Adam(lab.head.parameters(), lr=1e-3)] if apart else []
        for step, batch in enumerate(lab.batches(20)):
            for optimizer in optimizers:
                optimizer.zero_grad()
            ctc, share = lab.loss(batch), weight(step)
            said = decoder(lab.encoder(batch.features).mean(0))
            attention = torch.nn.functional.cross_entropy(said, batch.targets[:, 0].long())
            loss = attention if skip and not share else share * ctc + (1 - share) * attention
            loss.backward()
            for optimizer in optimizers:
                optimizer.step()
        return lab.weights(decoder)

    return case


WEIGHTS: dict[str, Callable[[int], float]] = {
    "half": lambda step: 0.5,
    "none in the first epochs": lambda step: 0.0 if step < 10 else 0.3,
    "none at all": lambda step: 0.0,
    "less and less": lambda step: max(0.0, 0.5 - step / 20),
    "every fifth step": lambda step: float(step % 5 == 4),
}
for title, weight in WEIGHTS.items():
    healthy(f"CTC and attention, weight {title}", seeds=2)(hybrid(weight))
    healthy(f"CTC and attention, weight {title}, apart", seeds=2)(hybrid(weight, apart=True))
    healthy(f"CTC and attention, weight {title}, loss left out", seeds=2)(hybrid(weight, skip=True))


@healthy(seeds=2)
def intermediate_ctc_with_one_head(seed: int) -> Weights:
    lab = Lab(seed)
    upper = torch.nn.Sequential(torch.nn.Linear(16, 16), torch.nn.Tanh())
    lab.optimizer.add_param_group({"params": list(upper.parameters())})
    for batch in lab.batches(14):
        lower = lab.encoder(batch.features)
        last = lab.ctc(lab.head(upper(lower)).log_softmax(-1), batch)
        between = lab.ctc(lab.head(lower).log_softmax(-1), batch)
        lab.update(0.7 * last + 0.3 * between)
    return lab.weights(upper)


@healthy(seeds=2)
def self_conditioned_ctc(seed: int) -> Weights:
    lab = Lab(seed)
    back, upper = torch.nn.Linear(12, 16), torch.nn.Linear(16, 16)
    lab.optimizer.add_param_group({"params": [*back.parameters(), *upper.parameters()]})
    for batch in lab.batches(14):
        lower = lab.encoder(batch.features)
        between = lab.head(lower)
        last = lab.head(upper(lower + back(between.softmax(-1))))
        lab.update(lab.ctc(last.log_softmax(-1), batch) + lab.ctc(between.log_softmax(-1), batch))
    return lab.weights(back, upper)


PHONEMES, LETTERS = 7, ["<blank>", *"abcdefghijk"]


def two_heads(first: str, phonemes: int, frozen: bool = False) -> Callable[[int], Weights]:
    """Letters and phonemes, each with a head; the guard knows the letters only."""

    def case(seed: int) -> Weights:
        lab = Lab(seed)
        other = torch.nn.Linear(16, phonemes).requires_grad_(not frozen)
        lab.optimizer.add_param_group({"params": list(other.parameters())})
        for batch in lab.batches(14):
            hidden = lab.encoder(batch.features)
            few = Batch(batch.features, 1 + batch.targets % (phonemes - 1), batch.input_lengths, batch.target_lengths)
            losses = {
                "letters": lambda hidden=hidden, batch=batch: lab.ctc(lab.head(hidden).log_softmax(-1), batch),
                "phonemes": lambda hidden=hidden, few=few: lab.ctc(other(hidden).log_softmax(-1), few),
            }
            names = [first, *({"letters", "phonemes"} - {first})]
            lab.update(torch.stack([losses[name]() for name in names]).sum())
        return lab.weights(other)

    return case


healthy("two heads", seeds=2)(two_heads("letters", PHONEMES))
for first in ("letters", "phonemes"):
    healthy(f"two heads, {first} first, a vocabulary for the letters", vocabulary=LETTERS)(two_heads(first, PHONEMES))
healthy("two heads, letters first, the other is wider", vocabulary=LETTERS)(two_heads("letters", 40))
healthy("two heads, the other first and wider", vocabulary=LETTERS)(two_heads("phonemes", 40))
healthy("two heads, one frozen", information=("CTC603",))(two_heads("letters", PHONEMES, frozen=True))


@healthy(seeds=2)
def entropy_and_risk_make_the_total_negative(seed: int) -> Weights:
    lab = Lab(seed)
    for batch in lab.batches(14):
        log_probs = lab.log_probs(batch.features)
        entropy = -(log_probs.exp() * log_probs).sum(-1).mean()
        total = lab.ctc(log_probs, batch) - 100.0 * entropy
        assert float(total.detach()) < 0
        lab.update(total)
    return lab.weights()


@healthy(seeds=2)
def a_transducer_elsewhere_in_the_model(seed: int) -> Weights:
    """A joint network of (batch, time, labels, classes), log_softmax over it, beside CTC."""
    lab = Lab(seed)
    predictor = torch.nn.Embedding(12, 16)
    lab.optimizer.add_param_group({"params": list(predictor.parameters())})
    for batch in lab.batches(10):
        hidden = lab.encoder(batch.features).transpose(0, 1)
        joint = lab.head(hidden[:, :, None] + predictor(batch.targets)[:, None])
        transducer = -joint.log_softmax(-1)[..., 0].mean()
        lab.update(lab.ctc(lab.head(hidden).log_softmax(-1).transpose(0, 1), batch) + transducer)
    return lab.weights(predictor)


@healthy(seeds=2)
def consistency_of_two_views(seed: int) -> Weights:
    """CR-CTC: two dropout views in one batch, and a KL term between them."""
    lab = Lab(seed)
    for batch in lab.batches(12):
        features = torch.nn.functional.dropout(batch.features.repeat(1, 2, 1), 0.2)
        log_probs = lab.log_probs(features)
        twice = Batch(
            features, batch.targets.repeat(2, 1), batch.input_lengths.repeat(2), batch.target_lengths.repeat(2)
        )
        one, two = log_probs.chunk(2, dim=1)
        agree = torch.nn.functional.kl_div(one, two.detach(), log_target=True, reduction="batchmean")
        lab.update(lab.ctc(log_probs, twice, reduction="sum") / 8 + 0.01 * agree)
    return lab.weights()


# ------------------------------------------------------------------------------------------------------- several models


@healthy(seeds=2)
def two_models_at_once_through_one_function(seed: int) -> Weights:
    """An ensemble: every line is the same for both, so that only the tensors tell them apart."""
    labs = [Lab(seed), Lab(seed + 100)]
    for _ in range(12):
        for lab in labs:
            lab.update(lab.loss(lab.batch()))
    return [weight for lab in labs for weight in lab.weights()]


@healthy(seeds=2)
def two_models_with_all_losses_before_all_steps(seed: int) -> Weights:
    labs = [Lab(seed), Lab(seed + 100)]
    for _ in range(12):
        for lab in labs:
            lab.optimizer.zero_grad()
            lab.loss(lab.batch()).backward()
        for lab in reversed(labs):
            lab.optimizer.step()
    return [weight for lab in labs for weight in lab.weights()]


@healthy(seeds=2)
def one_model_after_the_other(seed: int) -> Weights:
    """Cross-validation: a new model and a new optimizer for each fold, under one guard."""
    weights: Weights = []
    for fold in range(3):
        lab = Lab(seed + 10 * fold)
        for batch in lab.batches(10):
            lab.update(lab.loss(batch))
        weights += lab.weights()
    return weights


@healthy(seeds=2)
def a_new_head_with_a_new_optimizer_on_the_way(seed: int) -> Weights:
    lab = Lab(seed)
    for step, batch in enumerate(lab.batches(20)):
        if step == 8:
            lab.head = torch.nn.Linear(16, 12)
            lab.model = torch.nn.ModuleList([lab.encoder, lab.head])
            lab.optimizer = torch.optim.AdamW(lab.model.parameters())
        lab.update(lab.loss(batch))
    return lab.weights()


@healthy(seeds=2)
def model_and_optimizer_loaded_from_a_checkpoint(seed: int) -> Weights:
    lab = Lab(seed)
    for batch in lab.batches(8):
        lab.update(lab.loss(batch))
    torch.save((lab.model.state_dict(), lab.optimizer.state_dict()), "checkpoint.pt")
    resumed = Lab(seed + 1)
    model, optimizer = torch.load("checkpoint.pt")
    resumed.model.load_state_dict(model)
    resumed.optimizer.load_state_dict(optimizer)
    for batch in resumed.batches(8):
        resumed.update(resumed.loss(batch))
    Path("checkpoint.pt").unlink()
    return resumed.weights()


def teacher(grad_enabled: bool, ctc_of_student: bool) -> Callable[[int], Weights]:
    """A frozen teacher, whose CTC loss is looked at, and a student that learns its distribution."""

    def case(seed: int) -> Weights:
        lab, frozen = Lab(seed), Lab(seed + 50)
        frozen.model.requires_grad_(False)
        for batch in lab.batches(12):
            with torch.set_grad_enabled(grad_enabled):
                wanted = frozen.log_probs(batch.features)
                frozen.ctc(wanted, batch)
            said = lab.log_probs(batch.features)
            loss = torch.nn.functional.kl_div(said, wanted, log_target=True, reduction="batchmean")
            lab.update(loss + lab.ctc(said, batch) if ctc_of_student else loss)
        return lab.weights()

    return case


healthy("a teacher under no_grad, CTC for the student too", seeds=2)(teacher(grad_enabled=False, ctc_of_student=True))
healthy("a teacher under no_grad", seeds=2)(teacher(grad_enabled=False, ctc_of_student=False))
healthy("a teacher without no_grad, CTC for the student too", seeds=2)(teacher(grad_enabled=True, ctc_of_student=True))


@healthy(seeds=2)
def averages_of_the_weights_are_evaluated_too(seed: int) -> Weights:
    """EMA and SWA copies, with and without no_grad, between the backward pass and the step."""
    lab = Lab(seed)
    ema = AveragedModel(torch.nn.Sequential(lab.encoder, lab.head), multi_avg_fn=get_ema_multi_avg_fn(0.9))
    swa = AveragedModel(torch.nn.Sequential(lab.encoder, lab.head))
    for step, batch in enumerate(lab.batches(20)):
        lab.optimizer.zero_grad()
        lab.loss(batch).backward()
        with torch.no_grad():
            lab.ctc(ema(batch.features).log_softmax(-1), batch)
        lab.ctc(swa(batch.features).log_softmax(-1), batch)
        lab.optimizer.step()
        ema.update_parameters(torch.nn.Sequential(lab.encoder, lab.head))
        if step > 14:
            swa.update_parameters(torch.nn.Sequential(lab.encoder, lab.head))
    return lab.weights(ema, swa)


def adversarial(per_step: int, every: int) -> Callable[[int], Weights]:
    """A discriminator without CTC: it steps several times a batch, the recogniser now and then."""

    def case(seed: int) -> Weights:
        lab = Lab(seed)
        critic = torch.nn.Linear(16, 1)
        other = torch.optim.Adam(critic.parameters())
        for step, batch in enumerate(lab.batches(24)):
            hidden = lab.encoder(batch.features)
            for _ in range(per_step):
                other.zero_grad()
                critic(hidden.detach()).mean().backward()
                other.step()
            (lab.ctc(lab.head(hidden).log_softmax(-1), batch) - critic(hidden).mean()).backward()
            if step % every == every - 1:
                lab.optimizer.step()
                lab.optimizer.zero_grad()
        return lab.weights(critic)

    return case


healthy("a discriminator without CTC", seeds=2)(adversarial(per_step=1, every=1))
healthy("a discriminator that steps five times", seeds=2)(adversarial(per_step=5, every=1))
healthy("a discriminator that steps while the recogniser gathers gradients", seeds=2)(adversarial(per_step=1, every=8))


@healthy(seeds=2)
def other_losses_first_and_ctc_much_later(seed: int) -> Weights:
    lab = Lab(seed)
    for step, batch in enumerate(lab.batches(40)):
        log_probs = lab.log_probs(batch.features)
        lab.update(lab.ctc(log_probs, batch) if step > 30 else log_probs.exp().square().mean())
    return lab.weights()


# --------------------------------------------------------------------------------------------------------------- frozen


@healthy(seeds=2)
def frozen_encoder(seed: int) -> Weights:
    lab = Lab(seed)
    lab.encoder.requires_grad_(False)
    lab.optimizer = torch.optim.AdamW([p for p in lab.model.parameters() if p.requires_grad])
    for batch in lab.batches(12):
        lab.update(lab.loss(batch))
    return lab.weights()


@healthy(seeds=2, information=("CTC603",))
def frozen_head_on_purpose(seed: int) -> Weights:
    lab = Lab(seed)
    lab.head.requires_grad_(False)
    for batch in lab.batches(12):
        lab.update(lab.loss(batch))
    return lab.weights()


@healthy(seeds=2, information=("CTC603",))
def head_frozen_for_the_first_steps(seed: int) -> Weights:
    lab = Lab(seed)
    lab.head.requires_grad_(False)
    for step, batch in enumerate(lab.batches(20)):
        if step == 8:
            lab.head.requires_grad_(True)
        lab.update(lab.loss(batch))
    return lab.weights()


@healthy(seeds=2)
def only_the_bias_of_the_head(seed: int) -> Weights:
    lab = Lab(seed)
    lab.head.weight.requires_grad_(False)
    lab.optimizer = torch.optim.AdamW([*lab.encoder.parameters(), lab.head.bias])
    for batch in lab.batches(12):
        lab.update(lab.loss(batch))
    return lab.weights()


class LowRank(torch.nn.Module):
    """LoRA: a frozen layer and two small matrices beside it."""

    def __init__(self, layer: torch.nn.Linear) -> None:
        super().__init__()
        self.layer = layer.requires_grad_(False)
        self.down = torch.nn.Linear(layer.in_features, 2, bias=False)
        self.up = torch.nn.Linear(2, layer.out_features, bias=False)
        torch.nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        first: Tensor = self.layer(x) + self.up(self.down(x))
        return first


HEADS: dict[str, Callable[[], torch.nn.Module]] = {
    "LoRA": lambda: LowRank(torch.nn.Linear(16, 12)),
    "LoRA first": lambda: torch.nn.Sequential(LowRank(torch.nn.Linear(16, 16)), torch.nn.Linear(16, 12)),
    "without a bias": lambda: torch.nn.Linear(16, 12, bias=False),
    "weight norm": lambda: torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(16, 12)),
    "spectral norm": lambda: torch.nn.utils.parametrizations.spectral_norm(torch.nn.Linear(16, 12)),
    "two layers": lambda: torch.nn.Sequential(torch.nn.Linear(16, 16), torch.nn.ReLU(), torch.nn.Linear(16, 12)),
    "norm after the last layer": lambda: torch.nn.Sequential(torch.nn.Linear(16, 12), torch.nn.LayerNorm(12)),
    "dropout after the last layer": lambda: torch.nn.Sequential(torch.nn.Linear(16, 12), torch.nn.Dropout(0.1)),
}
for title, make_head in HEADS.items():

    def with_head(seed: int, make_head: Callable[[], torch.nn.Module] = make_head) -> Weights:
        lab = Lab(seed)
        lab.head = make_head()  # type: ignore[assignment]
        lab.model = torch.nn.ModuleList([lab.encoder, lab.head])
        lab.optimizer = torch.optim.AdamW([p for p in lab.model.parameters() if p.requires_grad], lr=1e-2)
        for batch in lab.batches(12):
            lab.update(lab.loss(batch))
        return lab.weights()

    healthy(f"head: {title}", information=("CTC603",) if title == "LoRA" else ())(with_head)


ARCHITECTURES: dict[str, Callable[[], torch.nn.Module]] = {
    "convolution as the head": lambda: Turned(torch.nn.Conv1d(8, 12, 3, padding=1), (1, 2, 0), (2, 0, 1)),
    "two convolutions": lambda: Turned(
        torch.nn.Sequential(torch.nn.Conv1d(8, 16, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv1d(16, 12, 1)),
        (1, 2, 0), (2, 0, 1),
    ),
    "transformer": lambda: torch.nn.Sequential(
        torch.nn.TransformerEncoderLayer(8, 2, 16), torch.nn.Linear(8, 12)
    ),
    "LSTM": lambda: Recurrent(torch.nn.LSTM(8, 8, bidirectional=True)),
    "GRU": lambda: Recurrent(torch.nn.GRU(8, 16)),
    "tied to an embedding": lambda: Tied(),
    "einsum": lambda: Tied(einsum=True),
    "batch norm": lambda: Turned(
        torch.nn.Sequential(torch.nn.BatchNorm1d(8), torch.nn.Conv1d(8, 12, 1)), (1, 2, 0), (2, 0, 1)
    ),
}  # fmt: skip


class Turned(torch.nn.Module):
    """A module that wants its axes in another order."""

    def __init__(self, inner: torch.nn.Module, before: tuple[int, ...], after: tuple[int, ...]) -> None:
        super().__init__()
        self.inner, self.before, self.after = inner, before, after

    def forward(self, x: Tensor) -> Tensor:
        turned: Tensor = self.inner(x.permute(self.before)).permute(self.after)
        return turned


class Recurrent(torch.nn.Module):
    """A recurrent layer and a head."""

    def __init__(self, layer: torch.nn.Module) -> None:
        super().__init__()
        self.layer, self.head = layer, torch.nn.Linear(16, 12)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head(self.layer(x)[0])
        return scores


class Tied(torch.nn.Module):
    """The weights of the head are those of an embedding."""

    def __init__(self, einsum: bool = False) -> None:
        super().__init__()
        self.below, self.embedding, self.einsum = torch.nn.Linear(8, 16), torch.nn.Embedding(12, 16), einsum

    def forward(self, x: Tensor) -> Tensor:
        if self.einsum:
            return torch.einsum("tbh,ch->tbc", self.below(x), self.embedding.weight)
        scores: Tensor = self.below(x) @ self.embedding.weight.T
        return scores


for title, make_net in ARCHITECTURES.items():

    def with_net(seed: int, make_net: Callable[[], torch.nn.Module] = make_net) -> Weights:
        lab = Lab(seed)
        net = make_net()
        lab.optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
        for batch in lab.batches(12):
            lab.update(lab.ctc(net(batch.features).log_softmax(-1), batch))
        return lab.weights(net)

    healthy(f"architecture: {title}")(with_net)


# ------------------------------------------------------------------------------------- evaluation, loading, recomputing


def evaluating(no_grad: bool, detached: bool = False, every: int = 4) -> Callable[[int], Weights]:
    def case(seed: int) -> Weights:
        lab = Lab(seed)
        lab.encoder.insert(1, torch.nn.Dropout(0.1))
        for step, batch in enumerate(lab.batches(16)):
            lab.model.train()
            lab.update(lab.loss(batch))
            if step % every == every - 1:
                lab.model.eval()
                with torch.set_grad_enabled(not no_grad):
                    for other in lab.batches(5, size=3):
                        log_probs = lab.log_probs(other.features)
                        lab.ctc(log_probs.detach() if detached else log_probs, other, reduction="sum")
        return lab.weights()

    return case


healthy("evaluation under no_grad", seeds=2)(evaluating(no_grad=True))
healthy("evaluation with gradients switched on", seeds=2)(evaluating(no_grad=False))
healthy("evaluation on detached log-probs with gradients switched on", seeds=2)(
    evaluating(no_grad=False, detached=True)
)
healthy("evaluation after every step", seeds=2)(evaluating(no_grad=False, every=1))
healthy("evaluation on detached log-probs after every step", seeds=2)(evaluating(no_grad=False, detached=True, every=1))


@healthy(seeds=2)
def evaluation_in_inference_mode_before_and_after(seed: int) -> Weights:
    lab = Lab(seed)
    for epoch in range(3):
        with torch.inference_mode():
            for batch in lab.batches(4):
                lab.loss(batch)
        for batch in lab.batches(6 if epoch < 2 else 0):
            lab.update(lab.loss(batch))
    return lab.weights()


@healthy(seeds=2)
def the_loss_is_looked_at_again_after_the_step(seed: int) -> Weights:
    lab = Lab(seed)
    for batch in lab.batches(12):
        lab.update(lab.loss(batch))
        lab.loss(batch)
    return lab.weights()


@healthy(seeds=2)
def a_metric_on_detached_log_probs_beside_the_loss(seed: int) -> Weights:
    lab = Lab(seed)
    for batch in lab.batches(12):
        log_probs = lab.log_probs(batch.features)
        loss = lab.ctc(log_probs, batch)
        lab.ctc(log_probs.detach(), batch, reduction="none")
        lab.update(loss)
    return lab.weights()


class Utterances(Dataset[tuple[Tensor, Tensor]]):
    """Utterances of many lengths."""

    def __len__(self) -> int:
        return 24

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(index)
        frames = 12 + index
        return torch.randn(frames, 8, generator=generator), torch.randint(1, 12, (1 + index % 5,), generator=generator)


def collate(items: list[tuple[Tensor, Tensor]]) -> Batch:
    features, labels = zip(*items, strict=True)
    return Batch(
        torch.nn.utils.rnn.pad_sequence(features),
        torch.nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=-1),
        torch.tensor([len(item) for item in features]),
        torch.tensor([len(item) for item in labels]),
    )


def loading(workers: int) -> Callable[[int], Weights]:
    def case(seed: int) -> Weights:
        lab = Lab(seed)
        loader = DataLoader(
            Utterances(), batch_size=5, shuffle=True, collate_fn=collate, num_workers=workers, generator=lab.generator
        )
        for _ in range(2):
            for batch in loader:
                lab.update(lab.loss(batch))
        return lab.weights()

    return case


healthy("a loader, its last batch short", seeds=3)(loading(0))
healthy("a loader with workers")(loading(2))


@healthy(seeds=2)
def deterministic_algorithms(seed: int) -> Weights:
    torch.use_deterministic_algorithms(True)
    try:
        lab = Lab(seed)
        for batch in [*lab.batches(6), *lab.batches(2, frames=700, size=8, labels=20)]:
            lab.update(lab.loss(batch))
    finally:
        torch.use_deterministic_algorithms(False)
    return lab.weights()


@healthy(seeds=2)
def anomaly_detection(seed: int) -> Weights:
    lab = Lab(seed)
    with torch.autograd.set_detect_anomaly(True, check_nan=True):
        for batch in lab.batches(6):
            lab.update(lab.loss(batch))
    return lab.weights()


def recomputing(reentrant: bool, what: str) -> Callable[[int], Weights]:
    def case(seed: int) -> Weights:
        lab = Lab(seed)
        for batch in lab.batches(12):
            features = batch.features.requires_grad_(True)
            if what == "encoder":
                hidden = checkpoint(lab.encoder, features, use_reentrant=reentrant)
                loss = lab.ctc(lab.head(hidden).log_softmax(-1), batch)
            elif what == "log_probs":
                loss = lab.ctc(checkpoint(lab.log_probs, features, use_reentrant=reentrant), batch)
            else:
                loss = checkpoint(lambda x, b=batch: lab.ctc(lab.log_probs(x), b), features, use_reentrant=reentrant)
            lab.update(loss)
        return lab.weights()

    return case


for reentrant in (False, True):
    for what in ("encoder", "log_probs", "loss"):
        healthy(f"checkpointed {what}, {'' if reentrant else 'not '}reentrant")(recomputing(reentrant, what))


@healthy(seeds=2)
def gradients_by_autograd_grad(seed: int) -> Weights:
    lab = Lab(seed)
    for batch in lab.batches(12):
        parameters = list(lab.model.parameters())
        for p, gradient in zip(parameters, torch.autograd.grad(lab.loss(batch), parameters), strict=True):
            p.grad = gradient
        lab.optimizer.step()
    return lab.weights()


@healthy(seeds=2)
def gradients_through_a_leaf_between_head_and_loss(seed: int) -> Weights:
    """The loss in parts: its gradient is gathered at a detached copy and sent down once."""
    lab = Lab(seed)
    for batch in lab.batches(12):
        log_probs = lab.log_probs(batch.features)
        leaf = log_probs.detach().requires_grad_(True)
        lab.ctc(leaf, batch).backward()
        lab.optimizer.zero_grad()
        log_probs.backward(leaf.grad)
        lab.optimizer.step()
    return lab.weights()


@healthy(seeds=2)
def an_adversarial_step_on_the_input(seed: int) -> Weights:
    """Each batch is seen twice: as it is, for its gradient, and disturbed along that, for the update."""
    lab = Lab(seed)
    for batch in lab.batches(12):
        features = batch.features.requires_grad_(True)
        (gradient,) = torch.autograd.grad(lab.loss(batch), features)
        disturbed = (features + 0.01 * gradient.sign()).detach()
        lab.update(lab.loss(Batch(disturbed, batch.targets, batch.input_lengths, batch.target_lengths)))
    return lab.weights()


@healthy(seeds=2)
def a_deep_copy_takes_over(seed: int) -> Weights:
    lab = Lab(seed)
    for batch in lab.batches(6):
        lab.update(lab.loss(batch))
    best = copy.deepcopy(lab)
    best.optimizer = torch.optim.AdamW(best.model.parameters())
    for batch in best.batches(8):
        best.update(best.loss(batch))
    return best.weights()


@healthy(seeds=2)
def weights_grow_by_hand_between_the_steps(seed: int) -> Weights:
    lab = Lab(seed)
    for batch in lab.batches(12):
        lab.update(lab.loss(batch))
        with torch.no_grad():
            for p in lab.model.parameters():
                p.add_(torch.randn(p.shape, generator=lab.generator), alpha=1e-3)
    return lab.weights()


@healthy(seeds=2)
def curriculum_of_short_words_first(seed: int) -> Weights:
    lab = Lab(seed)

    def stages() -> Iterator[Batch]:
        for labels in range(1, 10):
            yield from lab.batches(3, frames=4 * labels + int(math.sqrt(labels)), labels=labels)

    for batch in stages():
        lab.update(lab.loss(batch))
    return lab.weights()


@healthy(seeds=2, vocabulary=LETTERS)
def tasks_take_turns(seed: int) -> Weights:
    """A batch of letters, then one of phonemes, through a head each; the vocabulary is that of the letters."""
    lab = Lab(seed)
    other = torch.nn.Linear(16, PHONEMES)
    lab.optimizer.add_param_group({"params": list(other.parameters())})
    for step, batch in enumerate(lab.batches(12)):
        hidden = lab.encoder(batch.features)
        few = Batch(batch.features, 1 + batch.targets % (PHONEMES - 1), batch.input_lengths, batch.target_lengths)
        scores, labels = (other(hidden), few) if step % 2 else (lab.head(hidden), batch)
        lab.update(lab.ctc(scores.log_softmax(-1), labels))
    return lab.weights(other)


@healthy(seeds=2)
def two_heads_with_an_optimizer_each_in_phases_of_six_steps(seed: int) -> Weights:
    """Both losses are computed all the time, one of them trains."""
    lab = Lab(seed)
    other = torch.nn.Linear(16, PHONEMES)
    second = torch.optim.Adam(other.parameters())
    for step, batch in enumerate(lab.batches(24)):
        hidden = lab.encoder(batch.features)
        few = Batch(batch.features, 1 + batch.targets % (PHONEMES - 1), batch.input_lengths, batch.target_lengths)
        letters = lab.ctc(lab.head(hidden).log_softmax(-1), batch)
        phonemes = lab.ctc(other(hidden).log_softmax(-1), few)
        if (step // 6) % 2:
            second.zero_grad()
            phonemes.backward()
            second.step()
        else:
            lab.update(letters)
    return lab.weights(other)


@healthy(seeds=2)
def sparse_gradients(seed: int) -> Weights:
    lab = Lab(seed)
    words = torch.nn.Embedding(20, 8, sparse=True)
    sparse = torch.optim.SparseAdam(words.parameters())
    for batch in lab.batches(10):
        features = batch.features + words(lab.whole(0, 19, *batch.features.shape[:2]))
        sparse.zero_grad()
        lab.optimizer.zero_grad()
        lab.loss(Batch(features, batch.targets, batch.input_lengths, batch.target_lengths)).backward()
        sparse.step()
        lab.optimizer.step()
    return lab.weights(words)


@healthy(seeds=2)
def parameters_of_many_kinds(seed: int) -> Weights:
    """Half and complex ones, and one without elements, in one optimizer."""
    lab = Lab(seed)
    lab.encoder.bfloat16()
    empty, wave = torch.nn.Parameter(torch.zeros(0)), torch.nn.Parameter(torch.ones(3, dtype=torch.complex64))
    lab.optimizer = torch.optim.SGD([*lab.model.parameters(), empty, wave], lr=0.01)
    for batch in lab.batches(10):
        log_probs = lab.head(lab.encoder(batch.features.bfloat16()).float()).log_softmax(-1)
        lab.update(lab.ctc(log_probs, batch) + empty.sum() + wave.abs().sum())
    return lab.weights()


@healthy(seeds=2)
def penalty_on_gradients(seed: int) -> Weights:
    lab = Lab(seed)
    for batch in lab.batches(8):
        log_probs = lab.log_probs(batch.features)
        slopes = torch.autograd.grad(log_probs.square().mean(), list(lab.model.parameters()), create_graph=True)
        lab.update(lab.ctc(log_probs, batch) + torch.stack([slope.square().sum() for slope in slopes]).sum())
    return lab.weights()


@healthy(seeds=2)
def from_float32_to_float64_on_the_way(seed: int) -> Weights:
    lab = Lab(seed)
    for step, batch in enumerate(lab.batches(12)):
        if step == 6:
            lab.model.double()
            lab.optimizer = torch.optim.Adam(lab.model.parameters())
        lab.update(lab.ctc(lab.log_probs(batch.features.to(lab.head.weight.dtype)), batch))
    return lab.weights()


@healthy(seeds=2)
def accelerate_with_accumulation(seed: int) -> Weights:
    lab = Lab(seed)
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=3)
    net, optimizer = accelerator.prepare(torch.nn.Sequential(lab.encoder, lab.head), lab.optimizer)
    for batch in lab.batches(14):
        with accelerator.accumulate(net):
            accelerator.backward(lab.ctc(net(batch.features).log_softmax(-1), batch))
            optimizer.step()
            optimizer.zero_grad()
    return lab.weights()


@healthy()
def threads_that_train_at_once(seed: int) -> Weights:
    labs = [Lab(seed), Lab(seed + 1)]

    def train(lab: Lab) -> None:
        for _ in range(12):
            lab.update(lab.loss(lab.batch()))

    threads = [threading.Thread(target=train, args=(lab,)) for lab in labs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [weight for lab in labs for weight in lab.weights()]
