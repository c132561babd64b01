"""The run in the pictures: a recogniser learns to spell; then its loop divides log-probs by a temperature."""

import torch
from torch import nn

SYMBOLS = ["<blank>", " ", *"abcdefghijklmnopqrstuvwxyz"]
WORDS = ["seven", "nine", "three", "one", "zero", "eight", "two", "four"]
SHORT_STEP, WRONG_STEP, STEPS = 60, 240, 400

torch.manual_seed(0)
torch.set_num_threads(1)
chance = torch.Generator().manual_seed(0)
sounds = torch.randn(len(SYMBOLS), 24, generator=chance)


def number(low: int, high: int) -> int:
    """One of low … high - 1."""
    return int(torch.randint(low, high, (1,), generator=chance))


def utterance() -> tuple[torch.Tensor, torch.Tensor]:
    """Noisy frames of two or three words, and their letters."""
    text = " ".join(WORDS[number(0, len(WORDS))] for _ in range(number(2, 4)))
    labels = [SYMBOLS.index(letter) for letter in text]
    frames = [sound for label in labels for sound in [sounds[label]] * number(2, 6) + [torch.zeros(24)] * number(1, 3)]
    clean = torch.stack(frames)
    return clean + 0.7 * torch.randn(clean.shape, generator=chance), torch.tensor(labels)


class Recogniser(nn.Module):
    """Two convolutions and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv1d(24, 96, 5, padding=2), nn.Conv1d(96, 96, 5, padding=2)
        self.head = nn.Linear(96, len(SYMBOLS))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.second(torch.relu(self.first(features.transpose(1, 2))))).transpose(1, 2))


if __name__ == "__main__":
    from ctcguard import watch

    model, loss_function = Recogniser(), nn.CTCLoss(zero_infinity=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    with watch(run_dir="run", vocabulary=SYMBOLS):
        for step in range(STEPS):
            batch = [utterance() for _ in range(8)]
            frames = torch.tensor([len(features) for features, _ in batch])
            frames[3] = 6 if step == SHORT_STEP else frames[3]
            lengths = torch.tensor([len(labels) for _, labels in batch])
            logits = model(nn.utils.rnn.pad_sequence([features for features, _ in batch], batch_first=True))
            log_probs = logits.log_softmax(-1)
            if step >= WRONG_STEP:
                log_probs = log_probs / 1.2
            loss = loss_function(log_probs.transpose(0, 1), torch.cat([labels for _, labels in batch]), frames, lengths)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
