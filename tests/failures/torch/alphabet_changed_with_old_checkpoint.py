"""The alphabet got five letters more; the model that is fine-tuned keeps its 29 outputs.

report: https://github.com/mozilla/DeepSpeech/issues/2829
record: deepspeech-alphabet-checkpoint
expects: CTC101 missing-classes before training
"""

import io

import torch

import ctcguard

ENGLISH = " abcdefghijklmnopqrstuvwxyz'"
GERMAN = ENGLISH + "äöüßé"


class Alphabet:
    def __init__(self, characters):
        self.labels = [*characters, "<blank>"]

    def encode(self, text):
        return [self.labels.index(char) for char in text]


def build(n_output):
    layers = [torch.nn.Linear(26 * 3, 64), torch.nn.Hardtanh(0, 20), torch.nn.Linear(64, n_output)]
    return torch.nn.Sequential(*layers)


def load_checkpoint(alphabet):
    """What was saved after training on English."""
    file = io.BytesIO()
    torch.save(build(len(ENGLISH) + 1).state_dict(), file)
    file.seek(0)
    state = torch.load(file)
    model = build(len(ENGLISH) + 1)
    model.load_state_dict(state)
    # right: model[-1] = torch.nn.Linear(64, len(alphabet.labels))
    return model


alphabet = Alphabet(GERMAN)
model = load_checkpoint(alphabet)
blank = model[-1].out_features - 1
optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
with ctcguard.watch(vocabulary=alphabet.labels):
    for epoch in range(2):
        for sentence, other in [("guten tag", "danke"), ("grüße an alle", "bis dann"), ("schönes wetter", "ja")]:
            labels = torch.tensor(alphabet.encode(sentence + other))
            lengths = torch.tensor([len(sentence), len(other)])
            x = torch.randn(int(lengths.max()) * 3, 2, 26 * 3)
            log_probs = model(x).log_softmax(-1)
            loss = torch.nn.functional.ctc_loss(log_probs, labels, lengths * 3, lengths, blank=blank)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(f"Epoch {epoch} | Training | Loss: {loss.item():.6f}")
