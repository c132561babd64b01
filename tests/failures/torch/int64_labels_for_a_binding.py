"""A binding of warp-ctc reads 32-bit labels; given others it returns with an error code, and costs of 0.

report: https://github.com/SeanNaren/warp-ctc/issues/162
record: warpctc-zero-loss
expects: CTC504 zero-without-certainty at step 0
"""

import torch
from torch import nn

import ctcguard

CTC_STATUS_SUCCESS, CTC_STATUS_INVALID_VALUE = 0, 2


def cpu_ctc(acts, labels, act_lens, label_lens, costs, grads):
    """Fills costs and grads. acts (time, batch, classes) are activations; labels in one row; class 0 is the blank."""
    if labels.dtype != torch.int32:
        return CTC_STATUS_INVALID_VALUE
    for i, row in enumerate(labels.long().split(label_lens.tolist())):
        leaf = acts[: act_lens[i], i].detach().requires_grad_()
        states = torch.zeros(2 * len(row) + 1, dtype=torch.long)
        states[1::2] = row
        skip = torch.zeros(len(states), dtype=torch.bool)
        skip[3::2] = row[1:] != row[:-1]
        with torch.enable_grad():
            frames = leaf.log_softmax(-1)[:, states]
            alpha = torch.where(torch.arange(len(states)) < 2, frames[0], -1e30)
            for frame in frames[1:]:
                before = nn.functional.pad(alpha, (2, 0), value=-1e30)
                alpha = torch.stack([alpha, before[1:-1], before[:-2].where(skip, -1e30)]).logsumexp(0) + frame
            cost = -alpha[-2:].logsumexp(0)
        costs[i] = cost.item()
        grads[: act_lens[i], i] = torch.autograd.grad(cost, leaf)[0]
    return CTC_STATUS_SUCCESS


class _CTC(torch.autograd.Function):
    @staticmethod
    def forward(ctx, acts, labels, act_lens, label_lens):
        costs, grads = torch.zeros(acts.shape[1]), torch.zeros_like(acts)
        cpu_ctc(acts, labels, act_lens, label_lens, costs, grads)
        ctx.grads = grads
        return costs

    @staticmethod
    def backward(ctx, grad_output):
        return ctx.grads * grad_output[None, :, None], None, None, None


torch.manual_seed(162)
model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 20))
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
with ctcguard.watch() as guard:
    for iteration in range(3):
        acts = model(torch.randn(40, 3, 16))
        act_lens, label_lens = torch.tensor([40, 36, 30]), torch.tensor([8, 6, 5])
        labels = torch.randint(1, 20, (19,))  # right: labels = torch.randint(1, 20, (19,), dtype=torch.int32)
        costs = _CTC.apply(acts, labels, act_lens, label_lens)
        guard.observe(
            log_probs=acts.log_softmax(-1),
            targets=labels,
            input_lengths=act_lens,
            target_lengths=label_lens,
            blank=0,
            losses=costs,
            batch_first=False,
        )
        optimizer.zero_grad()
        costs.sum().backward()
        optimizer.step()
        print(iteration, costs.tolist())
