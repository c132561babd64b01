"""blank=len(vocab) - 1 is the last real token; the class for the blank is len(vocab).

report: https://github.com/castorini/howl/pull/47
record: blank-id-wrong-or-none
expects: CTC203 blank-index at step 1
"""

from dataclasses import dataclass

import torch
import torch.nn as nn

VOCAB = ["hey", "fire", "fox", "[OOV]"]


@dataclass
class TrainingSettings:
    learning_rate: float = 1e-3
    batch_size: int = 4
    num_mels: int = 40


class MobileNetish(nn.Module):
    def __init__(self, num_labels, settings):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv1d(settings.num_mels, 32, 5, padding=2),
            nn.BatchNorm1d(32),
            nn.ReLU(),
            nn.Conv1d(32, 32, 5, padding=2),
            nn.ReLU(),
        )
        self.output = nn.Linear(32, num_labels)

    def forward(self, x):
        return self.output(self.layers(x).transpose(1, 2))


SCRIPT = [
    [["hey", "fire", "fox"], ["hey", "fox"], ["fire"], ["hey"]],
    [["fire", "[OOV]", "fox"], ["hey", "fire", "fox"], ["[OOV]", "hey"], ["fox"]],
    [["[OOV]", "fire", "[OOV]"], ["fox"], ["hey", "fire", "fox"], ["fire", "fox"]],
]


def main():
    settings = TrainingSettings()
    blank_label = len(VOCAB) - 1  # right: blank_label = len(VOCAB)
    model = MobileNetish(len(VOCAB) + 1, settings)
    criterion = nn.CTCLoss(blank_label)
    optimizer = torch.optim.AdamW(model.parameters(), settings.learning_rate)
    for batch in SCRIPT:
        label_lengths = torch.tensor([len(words) for words in batch])
        labels = torch.zeros(len(batch), int(label_lengths.max()), dtype=torch.long)
        for row, words in zip(labels, batch):
            row[: len(words)] = torch.tensor([VOCAB.index(word) for word in words])
        audio_lengths = torch.tensor([32, 30, 24, 20])
        scores = model(torch.randn(len(batch), settings.num_mels, 32)).log_softmax(2)
        loss = criterion(scores.permute(1, 0, 2), labels, audio_lengths, label_lengths)
        model.zero_grad()
        loss.backward()
        optimizer.step()
        print(f"loss {loss.item():.3f}")


if __name__ == "__main__":
    main()
