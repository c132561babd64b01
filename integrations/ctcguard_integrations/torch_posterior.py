"""How much of the gradient of torch's CTC loss is wrong: it is that of the logits, as if only a softmax lay behind.

With y = exp(log_probs) and the posterior q of each class, the derivative of the loss is -q, but torch returns y - q.
Sent back through the rest of the graph, the y in it adds the gradient of sum(y): 0 behind a softmax, which sums to 1,
and 0 behind whatever keeps that sum, but not behind a temperature or a clamp.
"""

from __future__ import annotations

from typing import Any

import torch

from ctcguard_integrations.torch_provenance import op_of

LONGEST = 32


@torch.no_grad()
def wrong_gradient(losses: torch.Tensor, input_lengths: Any) -> torch.Tensor | None:
    """The norm of what torch adds, as a share of the norm of the right gradient, both where the softmax starts.

    The nodes of the graph are called one by one: no hook runs, no gradient is accumulated, nothing is freed.

    Parameters
    ----------
    losses : torch.Tensor, (batch,) or ()
        As ``torch.ctc_loss`` returns them with ``reduction="none"``, before any backward pass.
    input_lengths : tensor or sequence of int, (batch,)
        Only valid frames are looked at.

    Returns
    -------
    torch.Tensor or None
        0-d, on the device of the losses; ≥ 0, NaN where a gradient is. None when the graph between loss and softmax
        forks, ends before a softmax or holds an operation that is not known.
    """
    loss = losses.grad_fn
    while loss is not None and "CtcLoss" not in loss.name():
        loss = _only_child(loss)
    chain = [] if loss is None else _to_softmax(_only_child(loss))
    if not chain:
        return None
    log_probs = loss._saved_log_probs  # type: ignore[union-attr]
    frames = torch.arange(log_probs.shape[0], device=log_probs.device)[:, None]
    flat = losses.reshape(-1)
    valid = (frames < torch.as_tensor(input_lengths, device=log_probs.device)) & flat.isfinite() & (flat != 0)
    returned = _sent(loss, torch.ones_like(flat))
    added = log_probs.detach().exp() * valid[..., None].to(log_probs.dtype)
    for node in chain:
        returned, added = _sent(node, returned), _sent(node, added)
    right = (returned - added).float().norm()
    share: torch.Tensor = added.float().norm() / torch.where(right == 0, torch.ones_like(right), right)
    return share


def _only_child(node: Any) -> Any:
    """The one node whose gradient this one computes; None when there are several."""
    children = [child for child, _ in node.next_functions if child is not None]
    return children[0] if len(children) == 1 else None


def _to_softmax(node: Any) -> list[Any]:
    """The nodes from the log-probs down to the softmax, both included; empty when it is not reached."""
    chain: list[Any] = []
    while node is not None and len(chain) < LONGEST:
        op = op_of(node)
        if op is None:
            return []
        chain.append(node)
        if op in ("softmax", "log_softmax"):
            return chain
        node = _only_child(node)
    return []


def _sent(node: Any, gradient: torch.Tensor) -> torch.Tensor:
    """What a node makes of a gradient, for its one child."""
    place = next(i for i, (child, _) in enumerate(node.next_functions) if child is not None)
    results = node(gradient)
    result: torch.Tensor = results[place] if isinstance(results, tuple) else results
    return result
