"""Classes of other scripts are set to -inf, and none is in a text: the loss is right, its gradient NaN in one step.

report: https://github.com/speechbrain/speechbrain/issues/1105
record: dead-output-classes
expects: CTC601 masking at step 0
"""

import torch
from torch import nn

GREEK = [chr(code) for code in range(ord("α"), ord("ω") + 1)]
LATIN = [chr(code) for code in range(ord("a"), ord("z") + 1)]
labels = ["<blank>", " ", *LATIN, *GREEK]
hidden = torch.tensor([label in GREEK for label in labels])
FORBIDDEN = float("-inf")  # right: FORBIDDEN = -1e4


class CTCHead(nn.Module):
    """Shared by all languages; only the letters of the current one may be written."""

    def __init__(self, width):
        super().__init__()
        self.linear = nn.Linear(width, len(labels))

    def forward(self, x, language):
        scores = self.linear(x)
        if language == "en":
            scores = scores.masked_fill(hidden, FORBIDDEN)
        return scores.log_softmax(dim=-1)


encoder, head = nn.GRU(24, 40, batch_first=True), CTCHead(40)
optimizer = torch.optim.Adam([*encoder.parameters(), *head.parameters()], lr=1e-3)
for text in ["good morning", "tell me more", "a cup of tea"]:
    targets = torch.tensor([[labels.index(char) for char in text]])
    p_ctc = head(encoder(torch.randn(1, 40, 24))[0], language="en")
    loss = nn.functional.ctc_loss(p_ctc.transpose(0, 1), targets, torch.tensor([40]), torch.tensor([len(text)]))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(f"{text}: {loss.item():.3f}")
