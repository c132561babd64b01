"""Raw activations go to nn.CTCLoss, which (unlike warp-ctc) applies no softmax: the loss turns negative.

report: https://github.com/SeanNaren/deepspeech.pytorch/issues/488
record: raw-logits-deepspeech
expects: CTC402 raw-logits at step 0
"""

import math
from collections import OrderedDict

import torch
import torch.nn as nn

labels = "_'ابپتثجچحخدذرزژسشصضطظعغفقکگلمنوهی "


class BatchRNN(nn.Module):
    def __init__(self, input_size, hidden_size):
        super().__init__()
        self.batch_norm = nn.BatchNorm1d(input_size)
        self.rnn = nn.GRU(input_size, hidden_size, bidirectional=True)

    def forward(self, x, output_lengths):
        t, n = x.size(0), x.size(1)
        x = self.batch_norm(x.reshape(t * n, -1)).view(t, n, -1)
        x = nn.utils.rnn.pack_padded_sequence(x, output_lengths)
        x, _ = self.rnn(x)
        x, _ = nn.utils.rnn.pad_packed_sequence(x)
        return x.view(x.size(0), x.size(1), 2, -1).sum(2)  # (T, N, H)


class DeepSpeech(nn.Module):
    def __init__(self, rnn_hidden_size=48):
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(1, 4, kernel_size=(11, 11), stride=(2, 2), padding=(5, 5)), nn.BatchNorm2d(4), nn.Hardtanh(0, 20)
        )
        self.rnns = nn.Sequential(OrderedDict([("0", BatchRNN(4 * 20, rnn_hidden_size))]))
        self.fc = nn.Linear(rnn_hidden_size, len(labels), bias=False)

    def forward(self, x, lengths):
        output_lengths = (lengths + 1) // 2
        x = self.conv(x)
        x = x.view(x.size(0), -1, x.size(3)).permute(2, 0, 1).contiguous()  # (T, N, C * D)
        for rnn in self.rnns:
            x = rnn(x, output_lengths)
        return self.fc(x), output_lengths


torch.manual_seed(123456)
model = DeepSpeech()
criterion = nn.CTCLoss(blank=labels.index("_"), reduction="sum")
optimizer = torch.optim.SGD(model.parameters(), lr=3e-4, momentum=0.9, nesterov=True)

for i in range(3):
    input_sizes = torch.randint(70, 120, (4,)).sort(descending=True).values
    inputs = torch.randn(4, 1, 40, int(input_sizes.max()))
    target_sizes = torch.randint(4, 9, (4,))
    targets = torch.randint(1, len(labels), (int(target_sizes.sum()),), dtype=torch.int32)

    out, output_sizes = model(inputs, input_sizes)
    out = out.float()  # right: out = out.float().log_softmax(2)
    loss = criterion(out, targets, output_sizes, target_sizes) / inputs.size(0)
    if not math.isfinite(loss.item()):
        print("WARNING: received an inf loss, setting loss value to 0")
        continue
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 400)
    optimizer.step()
    print(f"Epoch: [1][{i + 1}/3]\tLoss {loss.item():.4f}")
