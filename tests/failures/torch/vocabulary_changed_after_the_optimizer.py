"""change_vocabulary makes a new decoder after the optimizer was set up: it is never trained.

report: https://github.com/NVIDIA-NeMo/Speech/issues/3796
record: nemo-finetune-empty
expects: CTC603 not-in-optimizer at step 4
"""

import torch
from torch import nn


class EncDecCTCModel(nn.Module):
    def __init__(self, vocabulary, d_model=48):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv1d(64, d_model, 3, stride=2, padding=1), nn.SiLU(), nn.Conv1d(d_model, d_model, 3, padding=1)
        )
        self.d_model = d_model
        self.change_vocabulary(vocabulary)

    def change_vocabulary(self, new_vocabulary):
        self.vocabulary = new_vocabulary
        self.decoder = nn.Conv1d(self.d_model, len(new_vocabulary) + 1, kernel_size=1)
        self.loss = nn.CTCLoss(blank=len(new_vocabulary), reduction="sum", zero_infinity=True)

    def setup_optimization(self, lr=1e-3):
        self.optimizer = torch.optim.AdamW(self.parameters(), lr=lr, betas=(0.9, 0.98))

    def training_step(self, signal, signal_len, transcript, transcript_len):
        log_probs = self.decoder(self.encoder(signal)).transpose(1, 2).log_softmax(dim=-1)
        encoded_len = (signal_len + 1) // 2
        return self.loss(log_probs.transpose(1, 0), transcript, encoded_len, transcript_len) / len(signal)


model = EncDecCTCModel([" ", *"abcdefghijklmnopqrstuvwxyz", "'"])
model.setup_optimization()
model.change_vocabulary([" ", *"абвгдеёжзийклмнопрстуфхцчшщъыьэюя"])
# right: model.setup_optimization()
for _ in range(6):
    transcript_len = torch.tensor([12, 9, 7])
    transcript = torch.randint(0, len(model.vocabulary), (3, 12))
    loss = model.training_step(torch.randn(3, 64, 100), torch.tensor([100, 91, 78]), transcript, transcript_len)
    model.optimizer.zero_grad()
    loss.backward()
    model.optimizer.step()
    print(f"train_loss={loss.item():.1f}")
