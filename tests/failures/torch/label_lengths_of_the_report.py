"""Five utterances with the lengths of the report: the last one has 149 phones on 113 frames.

report: https://github.com/thu-spmi/CAT/issues/22
record: cat-ctc-crf-inf
expects: CTC301 too-short at step 0
"""

import torch

torch.manual_seed(22)
PHONES = 72
input_lengths = [133, 131, 128, 116, 113]
label_lengths = [121, 124, 105, 100, 149]


class TDNN_NAS(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.tdnns = torch.nn.Sequential(
            torch.nn.Conv1d(40, 64, 3, padding=1),
            torch.nn.ReLU(),
            torch.nn.Conv1d(64, 64, 3, padding=2, dilation=2),
            torch.nn.ReLU(),
        )
        self.linear = torch.nn.Linear(64, PHONES)

    def forward(self, x):
        return self.linear(self.tdnns(x.transpose(1, 2)).transpose(1, 2)).log_softmax(2)


def distinct_neighbours(count):
    """Phones of which no two neighbours are equal."""
    steps = torch.randint(1, PHONES - 1, (count,))
    return steps.cumsum(0) % (PHONES - 1) + 1


used = list(range(5))  # right: used = [i for i in range(5) if input_lengths[i] >= label_lengths[i]]
frames = torch.tensor([input_lengths[i] for i in used])
counts = torch.tensor([label_lengths[i] for i in used])
model = TDNN_NAS()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
for _ in range(3):
    labels = torch.cat([distinct_neighbours(int(count)) for count in counts])
    netout = model(torch.randn(len(used), int(frames.max()), 40))
    partial_loss = torch.nn.functional.ctc_loss(netout.transpose(0, 1), labels, frames, counts, reduction="sum")
    optimizer.zero_grad()
    partial_loss.backward()
    torch.nn.utils.clip_grad_value_(model.parameters(), 5)
    optimizer.step()
    print(f"partial_loss {-partial_loss.item():.2f}")
