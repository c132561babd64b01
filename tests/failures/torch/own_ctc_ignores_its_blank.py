"""A loss written in Python takes `blank=` and uses 0 where it builds its states.

report: https://github.com/liuhu-bigeye/enctc.crnn/issues/9
record: custom-ctc-ignores-blank-argument
expects: CTC505 blank-index at step 0
"""

import torch
from torch import nn

import ctcguard


def ctc_loss_log(pred, token, pred_len, token_len, blank=0):
    """pred (time, batch, classes), log-probs; token (batch, labels). The losses, (batch,)."""
    Time, batch, _ = pred.size()
    U = token.size(1) * 2 + 1
    with_blank = token.new_zeros((batch, U))  # right: with_blank = token.new_full((batch, U), blank)
    with_blank[:, 1::2] = token
    length = token_len * 2 + 1
    skip = torch.zeros(batch, U, dtype=torch.bool)
    skip[:, 2:] = (with_blank[:, 2:] != with_blank[:, :-2]) & (torch.arange(2, U) % 2 == 1)
    never = pred.new_tensor(-1e30)
    alpha = pred.new_full((batch, U), -1e30)
    alpha[:, :2] = pred[0].gather(1, with_blank[:, :2])
    losses = []
    for t in range(Time):
        if t:
            one = torch.cat([never.expand(batch, 1), alpha[:, :-1]], 1)
            two = torch.where(skip, torch.cat([never.expand(batch, 2), alpha[:, :-2]], 1), never)
            alpha = torch.stack([alpha, one, two]).logsumexp(0) + pred[t].gather(1, with_blank)
        ends = torch.stack([alpha.gather(1, length[:, None] - 1), alpha.gather(1, length[:, None] - 2)]).logsumexp(0)
        losses.append(-ends[:, 0])
    return torch.stack(losses).gather(0, (pred_len - 1)[None])[0]


C = 27
crnn = nn.Sequential(nn.Conv1d(32, 48, 3, padding=1), nn.ReLU(), nn.Conv1d(48, C, 1))
optimizer = torch.optim.Adam(crnn.parameters(), lr=1e-3)
with ctcguard.watch() as guard:
    for i in range(3):
        image = torch.rand(4, 32, 26)
        text, length = torch.randint(0, C - 1, (4, 6)), torch.tensor([6, 5, 5, 4])
        preds = crnn(image).permute(2, 0, 1).log_softmax(2)
        preds_size = torch.full((4,), preds.size(0))
        costs = ctc_loss_log(preds, text, preds_size, length, blank=C - 1)
        guard.observe(
            log_probs=preds,
            targets=text,
            input_lengths=preds_size,
            target_lengths=length,
            blank=C - 1,
            losses=costs,
            batch_first=False,
        )
        cost = costs.mean()
        optimizer.zero_grad()
        cost.backward()
        optimizer.step()
        print(f"[{i}] Loss: {cost.item():f}")
