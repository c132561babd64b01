"""The vocabulary has lower case letters, the transcripts capitals: nearly every label is <unk>.

report: https://github.com/jonatasgrosman/huggingsound/issues/20
record: case-mismatch-all-unk
expects: CTC105 letter-case at step 0
"""

import torch
from torch import nn

import ctcguard

vocab = {token: i for i, token in enumerate(["<pad>", "<unk>", "|", *"abcdefghijklmnopqrstuvwxyz", "'"])}
TRANSCRIPTS = ["MISTER QUILTER IS THE APOSTLE", "NOR IS HIS MANNER", "HE TELLS US THAT", "LINNELL'S PICTURES"]


def tokenize(text):
    text = text.replace(" ", "|")  # right: text = text.replace(" ", "|").lower()
    return [vocab.get(char, vocab["<unk>"]) for char in text]


encoder, lm_head = nn.GRU(64, 48, batch_first=True), nn.Linear(48, len(vocab))
optimizer = torch.optim.AdamW([*encoder.parameters(), *lm_head.parameters()], lr=3e-4)
with ctcguard.watch(vocabulary=vocab):
    for step in range(4):
        labels = [tokenize(text) for text in TRANSCRIPTS]
        lengths = torch.tensor([len(row) for row in labels])
        frames = lengths * 3
        x = torch.randn(4, int(frames.max()), 64)
        log_probs = lm_head(encoder(x)[0]).log_softmax(-1)
        flat = torch.tensor([label for row in labels for label in row])
        loss = nn.functional.ctc_loss(log_probs.transpose(0, 1), flat, frames, lengths, blank=vocab["<pad>"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print({"step": step, "loss": round(loss.item(), 3)})
