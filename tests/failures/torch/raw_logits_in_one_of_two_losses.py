"""Of two losses of a singing annotator, the CTC one gets logits: the sum of both still looks plausible.

report: https://github.com/gwx314/STARS/issues/9
record: raw-logits-stars
expects: CTC402 raw-logits at step 0
"""

import numpy as np
import torch
import torch.nn.functional as F

rng = np.random.default_rng(2026)
N_PH, N_NOTES, N_MEL = 62, 40, 80


class Annotator(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.pre = torch.nn.Conv1d(N_MEL, 64, 5, padding=2)
        self.gru = torch.nn.GRU(64, 32, bidirectional=True, batch_first=True)
        self.ph_head = torch.nn.Linear(64, N_PH)
        self.note_head = torch.nn.Linear(64, N_NOTES)

    def forward(self, mel):
        h = F.relu(self.pre(mel.transpose(1, 2))).transpose(1, 2)
        h, _ = self.gru(h)
        return {"ph_frame_logits": self.ph_head(h), "note_logits": self.note_head(h)}


def collate(n=3):
    mel_lengths = rng.integers(50, 81, n)
    ph_lengths = rng.integers(8, 15, n)
    mel = np.zeros((n, mel_lengths.max(), N_MEL), dtype=np.float32)
    notes = np.full((n, mel_lengths.max()), -1)
    ph = np.zeros((n, ph_lengths.max()), dtype=np.int64)
    for i in range(n):
        mel[i, : mel_lengths[i]] = rng.normal(-4, 2, (mel_lengths[i], N_MEL))
        notes[i, : mel_lengths[i]] = np.repeat(rng.integers(0, N_NOTES, mel_lengths[i]), 5)[: mel_lengths[i]]
        ph[i, : ph_lengths[i]] = rng.integers(1, N_PH, ph_lengths[i])
    batch = {"mel": mel, "notes": notes, "ph": ph, "mel_lengths": mel_lengths, "ph_lengths": ph_lengths}
    return {name: torch.as_tensor(value) for name, value in batch.items()}


def run_training_step(model, sample):
    output = model(sample["mel"])
    losses = {"note": F.cross_entropy(output["note_logits"].transpose(1, 2), sample["notes"], ignore_index=-1)}
    ph_log_probs = output["ph_frame_logits"]  # right: ph_log_probs = output["ph_frame_logits"].log_softmax(-1)
    losses["ph_ctc"] = 0.1 * F.ctc_loss(
        ph_log_probs.transpose(0, 1), sample["ph"], sample["mel_lengths"], sample["ph_lengths"], zero_infinity=True
    )
    return losses


model = Annotator()
opt = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.98))
for global_step in range(4):
    losses = run_training_step(model, collate())
    total_loss = sum(losses.values())
    opt.zero_grad()
    total_loss.backward()
    opt.step()
    print(global_step, {name: round(value.item(), 3) for name, value in losses.items()})
