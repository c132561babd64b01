"""The line with the log_softmax was commented out while something was tried, and stayed so.

report: https://github.com/jeremyfix/deeplearning-lectures/issues/22
record: raw-logits-commented-out
expects: CTC402 raw-logits at step 0
"""

import torch
import torch.nn as nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence
from torch.utils.data import DataLoader, Dataset

CHARMAP = "¤ abcdefghijklmnopqrstuvwxyzéèêçà'"  # ¤ is the blank
SENTENCES = ["le chat dort", "un éclair", "ça marche", "il pleut ici", "voilà tout", "trois pommes"]


class CommonVoice(Dataset):
    def __len__(self):
        return len(SENTENCES)

    def __getitem__(self, idx):
        text = torch.tensor([CHARMAP.index(char) for char in SENTENCES[idx]])
        waveform_frames = 5 * len(text) + idx
        return torch.randn(waveform_frames, 32), text


def batch_collate(batch):
    batch = sorted(batch, key=lambda item: len(item[0]), reverse=True)
    spectros, texts = zip(*batch)
    lengths = [torch.tensor([len(item) for item in part]) for part in (spectros, texts)]
    return pad_sequence(spectros), lengths[0], pad_sequence(texts, batch_first=True), lengths[1]


class CTCModel(nn.Module):
    def __init__(self, n_mels, num_hidden, charmap_size):
        super().__init__()
        self.rnn = nn.LSTM(n_mels, num_hidden, num_layers=2, bidirectional=True)
        self.charlin = nn.Linear(2 * num_hidden, charmap_size)

    def forward(self, spectros, lengths):
        packed = pack_padded_sequence(spectros, lengths)
        outputs, _ = pad_packed_sequence(self.rnn(packed)[0])
        out = self.charlin(outputs)
        # right: out = nn.functional.log_softmax(out, dim=2)
        return out


def main():
    loader = DataLoader(CommonVoice(), batch_size=3, shuffle=True, collate_fn=batch_collate)
    model = CTCModel(32, 24, len(CHARMAP))
    ctc = nn.CTCLoss(blank=CHARMAP.index("¤"), zero_infinity=True)
    optim = torch.optim.Adam(model.parameters(), lr=0.01)
    for epoch in range(2):
        for spectros, spectro_lengths, texts, text_lengths in loader:
            loss = ctc(model(spectros, spectro_lengths), texts, spectro_lengths, text_lengths)
            optim.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 20)
            optim.step()
        print(f"epoch {epoch}: {loss.item():.3f}")


if __name__ == "__main__":
    main()
