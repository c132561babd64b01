"""Another sentence-piece model than the one that the head was built for: its larger ids come late in the epoch.

report: https://github.com/k2-fsa/icefall/issues/2034
record: icefall-finetune-vocab
expects: CTC101 missing-classes before training
"""

import argparse

import torch
from torch import nn

import ctcguard

CHARACTERS = ["<blk>", "<sos/eos>", "<unk>", *"abcdefghijklmnopqrstuvwxyz'"]
PIECES = [*CHARACTERS, "▁the", "▁a", "ing", "▁of", "ed", "▁to", "er"]


def get_params():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bpe-model", default="data/lang_bpe_35/bpe.model")
    parser.add_argument("--base-lr", type=float, default=0.02)
    params = parser.parse_args([])
    params.vocab_size = len(CHARACTERS)  # right: params.vocab_size = len(PIECES)
    return params


class AsrModel(nn.Module):
    def __init__(self, encoder_dim, vocab_size):
        super().__init__()
        self.encoder_embed = nn.Linear(80 * 4, encoder_dim)
        self.encoder = nn.GRU(encoder_dim, encoder_dim, batch_first=True)
        self.ctc_output = nn.Sequential(nn.Dropout(p=0.1), nn.Linear(encoder_dim, vocab_size), nn.LogSoftmax(dim=-1))

    def forward(self, x, x_lens, y, y_lens):
        x = x.reshape(x.shape[0], x.shape[1] // 4, -1)
        encoder_out, _ = self.encoder(torch.relu(self.encoder_embed(x)))
        log_probs = self.ctc_output(encoder_out)
        return nn.functional.ctc_loss(log_probs.permute(1, 0, 2), y, x_lens // 4, y_lens, reduction="sum")


def train_one_epoch(params, model, optimizer):
    for batch_idx in range(4):
        x_lens, y_lens = torch.tensor([160, 120, 100]), torch.tensor([20, 15, 9])
        longest_piece = len(PIECES) if batch_idx == 2 else len(CHARACTERS)
        y = torch.randint(3, longest_piece, (3, 20))
        y[2].clamp_(max=len(CHARACTERS) - 1)
        loss = model(torch.randn(3, 160, 80), x_lens, y, y_lens)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(f"Epoch 1, batch {batch_idx}, ctc_loss={loss.item() / 3:.3f}, batch size: 3")


params = get_params()
model = AsrModel(48, params.vocab_size)
optimizer = torch.optim.Adam(model.parameters(), lr=params.base_lr)
with ctcguard.watch(vocabulary=PIECES):
    train_one_epoch(params, model, optimizer)
