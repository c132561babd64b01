"""A supervision graph in which only the blank may last for several frames: the objective stays too low.

report: https://github.com/k2-fsa/snowfall/pull/57
record: snowfall-repeats-unsupported
expects: CTC505 too-high at step 0
"""

import math

import torch

import ctcguard


def build_ctc_graph(phones):
    """Arcs (from, to, label) of the alignments of a sequence; state 2i is the blank before phone i."""
    states = [0]
    for phone in phones:
        states += [phone, 0]
    arcs = []
    for i, label in enumerate(states):
        if label == 0:
            arcs.append((i, i))
        # right: arcs += [(i, i)] * (label != 0)
        if i + 1 < len(states):
            arcs.append((i, i + 1))
        if label and i + 2 < len(states) and states[i + 2] != label:
            arcs.append((i, i + 2))
    return states, arcs


def intersect(log_probs, phones):
    """The score of all alignments; log_probs (frames, phones)."""
    states, arcs = build_ctc_graph(phones)
    labels = torch.tensor(states)
    transition = log_probs.new_full((len(states), len(states)), -math.inf)
    transition[tuple(zip(*arcs))] = 0
    alpha = torch.full_like(log_probs[0, labels], -1e30)
    alpha = torch.where(torch.arange(len(states)) < 2, log_probs[0, labels], alpha)
    for frame in log_probs[1:]:
        alpha = (alpha[:, None] + transition).logsumexp(0) + frame[labels]
    return alpha[-2:].logsumexp(0)


torch.manual_seed(57)
model = torch.nn.Sequential(torch.nn.Linear(40, 64), torch.nn.Tanh(), torch.nn.Linear(64, 30))
optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
with ctcguard.watch() as guard:
    for batch_idx in range(3):
        feats, lengths = torch.randn(3, 30, 40), torch.tensor([30, 27, 22])
        texts = [torch.randint(1, 30, (count,)) for count in (8, 7, 5)]
        nnet_output = model(feats).log_softmax(-1)
        pairs = zip(nnet_output, lengths, texts)
        scores = torch.stack([intersect(output[:length], text.tolist()) for output, length, text in pairs])
        guard.observe(
            log_probs=nnet_output,
            targets=torch.cat(texts),
            input_lengths=lengths,
            target_lengths=torch.tensor([len(text) for text in texts]),
            blank=0,
            losses=-scores,
        )
        objf = scores.sum() / lengths.sum()
        optimizer.zero_grad()
        (-objf).backward()
        optimizer.step()
        print(f"batch {batch_idx}, average objf: {objf.item():.4f}")
