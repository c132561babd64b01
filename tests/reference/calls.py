"""Real loss calls, and what the rules about scores and losses say of them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch

from ctcguard import diagnose
from ctcguard.finding import Finding
from ctcguard.rules import ALL

CTC_LOSS = jax.jit(optax.ctc_loss, static_argnames="blank_id")
ABOUT_SCORES_AND_LOSSES = tuple(rule() for rule in ALL if rule.code[3] in "45")


def findings(**call: Any) -> list[Finding]:
    """Every finding of the rules CTC4xx and CTC5xx, symptoms too."""
    verdicts = diagnose(rules=ABOUT_SCORES_AND_LOSSES, **call)
    return [finding for verdict in verdicts for finding in verdict.findings()]


def of_torch(
    log_probs: torch.Tensor, targets: Any, input_lengths: Any, target_lengths: Any, blank: int = 0, **options: Any
) -> dict[str, Any]:
    """A call of ``torch.nn.functional.ctc_loss`` on (time, batch, classes), as `diagnose` takes it."""
    facts = {"targets": targets, "input_lengths": input_lengths, "target_lengths": target_lengths, "blank": blank}
    losses = torch.nn.functional.ctc_loss(log_probs, **facts, reduction="none", **options)
    source = {"framework": "torch", "source": "torch.ctc_loss"}
    return {"log_probs": log_probs.detach(), "losses": losses.detach(), "batch_first": False} | facts | source | options


def of_optax(logits: Any, labels: np.ndarray, input_lengths: Any, target_lengths: Any, blank: int = 0) -> Any:
    """A call of ``optax.ctc_loss`` on (batch, time, classes), as `diagnose` takes it."""
    beyond = [
        jnp.asarray(np.arange(size) >= np.asarray(lengths)[:, None], float)
        for size, lengths in ((logits.shape[1], input_lengths), (labels.shape[1], target_lengths))
    ]
    losses = np.asarray(CTC_LOSS(logits, beyond[0], jnp.asarray(labels), beyond[1], blank_id=blank))
    facts = {"targets": labels, "input_lengths": input_lengths, "target_lengths": target_lengths, "blank": blank}
    return {"logits": logits, "losses": losses, "framework": "jax", "source": "optax.ctc_loss", **facts}
