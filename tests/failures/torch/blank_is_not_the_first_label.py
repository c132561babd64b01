"""'_' is not the first of the labels, but the loss takes class 0 for the blank: WER stays at 98.

report: https://github.com/SeanNaren/deepspeech.pytorch/issues/354
record: blank-index-hardcoded-zero
expects: CTC203 blank-index at step 0
"""

import json

import torch
from torch import nn

labels = json.loads(
    '["\'", "A", "B", "C", "D", "E", "F", "G", "_", "H", "I", "L", "M", "N", "O", "R", "S", "T", "U", " "]'
)
labels_map = {label: i for i, label in enumerate(labels)}
transcripts = ["IT'S A LIE", "THE MAN'S HAT", "I'M FREE", "TELL US", "NO ONE", "THAT'S IT", "DOGS", "A FOG"]


def parse_transcript(transcript):
    return [labels_map[x] for x in transcript if x in labels_map]


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Sequential(nn.Conv1d(81, 40, 11, stride=2, padding=5), nn.Hardtanh(0, 20))
        self.rnn = nn.LSTM(40, 32, bidirectional=True, batch_first=True)
        self.fc = nn.Linear(64, len(labels))

    def forward(self, spect):
        return self.fc(self.rnn(self.conv(spect).transpose(1, 2))[0]).log_softmax(-1)


model = Model()
criterion = nn.CTCLoss(reduction="sum")  # right: criterion = nn.CTCLoss(reduction="sum", blank=labels_map["_"])
optimizer = torch.optim.Adam(model.parameters(), lr=3e-4)
for epoch in range(2):
    for start in range(0, len(transcripts), 4):
        targets = [parse_transcript(text) for text in transcripts[start : start + 4]]
        sizes = torch.tensor([len(target) for target in targets], dtype=torch.int)
        frames = int(sizes.max()) * 8
        spects = torch.randn(len(targets), 81, frames)
        input_percentages = sizes / sizes.max()
        out = model(spects)
        output_sizes = (input_percentages * out.size(1)).int()
        flat = torch.IntTensor([label for target in targets for label in target])
        loss = criterion(out.transpose(0, 1), flat, output_sizes, sizes) / len(targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"Training Summary Epoch: [{epoch + 1}]\tAverage Loss {loss.item():.3f}")
