"""A native loss gives 0 where no alignment exists, and softmax as the gradient: nothing is infinite.

report: https://github.com/rwth-i6/returnn/issues/1835
record: returnn-infeasible-softmax-grad
expects: CTC301 repeats at step 1
"""

import torch

import ctcguard


class NativeCTC(torch.autograd.Function):
    """As the native op: logits in, (batch,) out; a sequence without a path costs 0."""

    @staticmethod
    def forward(ctx, logits, targets, logits_lens, target_lens):
        with torch.enable_grad():
            leaf = logits.detach().requires_grad_()
            losses = _forward_scores(leaf.log_softmax(-1), targets, logits_lens, target_lens)
            found = losses < 1e20
            (grad,) = torch.autograd.grad(losses[found].sum(), leaf)
        grad[:, ~found] = logits.softmax(-1)[:, ~found]
        ctx.save_for_backward(grad)
        return torch.where(found, losses, 0.0).detach()

    @staticmethod
    def backward(ctx, grad_output):
        (grad,) = ctx.saved_tensors
        return grad * grad_output[None, :, None], None, None, None


def _forward_scores(log_probs, targets, frames, labels):
    batch, width = targets.shape
    states = torch.zeros(batch, 2 * width + 1, dtype=torch.long)
    states[:, 1::2] = targets
    skip = torch.zeros_like(states, dtype=torch.bool)
    skip[:, 3::2] = targets[:, 1:] != targets[:, :-1]
    alpha = torch.full(states.shape, -1e30)
    alpha = torch.cat([log_probs[0].gather(1, states[:, :2]), alpha[:, 2:]], 1)
    history = [alpha]
    for frame in log_probs[1:]:
        one = torch.nn.functional.pad(alpha[:, :-1], (1, 0), value=-1e30)
        two = torch.nn.functional.pad(alpha[:, :-2], (2, 0), value=-1e30).masked_fill(~skip, -1e30)
        alpha = torch.stack([alpha, one, two]).logsumexp(0) + frame.gather(1, states)
        history.append(alpha)
    last = torch.stack(history)[frames - 1, torch.arange(batch)]
    return -torch.stack([last.gather(1, 2 * labels[:, None] - i) for i in range(2)]).logsumexp(0)[:, 0]


def keep(frames, labels):
    return frames >= len(labels)  # right: return frames >= len(labels) + (labels[1:] == labels[:-1]).sum()


BATCHES = [
    [(24, [5, 3, 7, 7, 1]), (20, [2, 9, 4, 6]), (18, [8, 1, 3])],
    [(24, [4, 4, 2, 7, 9, 1]), (20, [6, 5, 5, 8]), (7, [3, 3, 1, 1, 2, 6])],
    [(24, [9, 2, 3]), (16, [1, 8, 8]), (12, [7, 6])],
]
layer = torch.nn.Linear(20, 10)
optimizer = torch.optim.Adam(layer.parameters(), lr=1e-2)
with ctcguard.watch() as guard:
    for batch in BATCHES:
        samples = [(frames, torch.tensor(labels)) for frames, labels in batch]
        samples = [sample for sample in samples if keep(*sample)]
        frames = torch.tensor([frames for frames, _ in samples])
        target_lens = torch.tensor([len(labels) for _, labels in samples])
        targets = torch.nn.utils.rnn.pad_sequence([labels for _, labels in samples], batch_first=True)
        logits = layer(torch.randn(24, len(samples), 20))
        losses = NativeCTC.apply(logits, targets, frames, target_lens)
        guard.observe(
            log_probs=logits.log_softmax(-1),
            targets=targets,
            input_lengths=frames,
            target_lengths=target_lens,
            blank=0,
            losses=losses,
            batch_first=False,
        )
        optimizer.zero_grad()
        losses.sum().backward()
        optimizer.step()
        print(f"ctc {losses.mean().item():.3f}")
