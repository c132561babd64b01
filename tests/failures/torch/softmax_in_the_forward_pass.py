"""A speech tutorial's model with 29 classes, whose forward ends in F.softmax: the loss is negative in every batch.

report: https://discuss.pytorch.org/t/ctc-loss-is-negative/200771
record: negative-ctc-discuss-200771
expects: CTC402 probabilities at step 0
"""

import torch
import torch.nn as nn
import torch.nn.functional as F
import torch.optim as optim


class CNNLayerNorm(nn.Module):
    def __init__(self, n_feats):
        super().__init__()
        self.layer_norm = nn.LayerNorm(n_feats)

    def forward(self, x):
        return self.layer_norm(x.transpose(2, 3).contiguous()).transpose(2, 3).contiguous()


class SpeechRecognitionModel(nn.Module):
    def __init__(self, rnn_dim=32, n_class=29, n_feats=64):
        super().__init__()
        self.cnn = nn.Conv2d(1, 4, 3, stride=2, padding=1)
        self.norm = CNNLayerNorm(n_feats // 2)
        self.fully_connected = nn.Linear(4 * n_feats // 2, rnn_dim)
        self.birnn = nn.LSTM(rnn_dim, rnn_dim, batch_first=True, bidirectional=True)
        self.classifier = nn.Sequential(nn.Linear(rnn_dim * 2, rnn_dim), nn.GELU(), nn.Linear(rnn_dim, n_class))

    def forward(self, x):
        x = F.gelu(self.norm(self.cnn(x)))
        sizes = x.size()
        x = x.view(sizes[0], sizes[1] * sizes[2], sizes[3]).transpose(1, 2)
        x, _ = self.birnn(self.fully_connected(x))
        return self.classifier(x)


def data_processing(n):
    spectrograms = [torch.randn(1, 64, 2 * (50 - 3 * i)) for i in range(n)]
    labels = [torch.randint(0, 28, (10 - i,)) for i in range(n)]
    input_lengths = [spec.shape[2] // 2 for spec in spectrograms]
    width = spectrograms[0].shape[2]
    padded = torch.stack([F.pad(spec, (0, width - spec.shape[2])) for spec in spectrograms])
    return padded, nn.utils.rnn.pad_sequence(labels, batch_first=True), input_lengths, [len(label) for label in labels]


def train(model, criterion, optimizer, scheduler, epoch):
    model.train()
    for batch_idx in range(3):
        spectrograms, labels, input_lengths, label_lengths = data_processing(5)
        optimizer.zero_grad()
        output = model(spectrograms)  # (batch, time, n_class)
        output = F.softmax(output, dim=2)  # right: output = F.log_softmax(output, dim=2)
        output = output.transpose(0, 1)  # (time, batch, n_class)
        loss = criterion(output, labels, input_lengths, label_lengths)
        loss.backward()
        optimizer.step()
        scheduler.step()
        print(f"Train Epoch: {epoch} [{batch_idx}/3]\tLoss: {loss.item():.6f}")


model = SpeechRecognitionModel()
optimizer = optim.AdamW(model.parameters(), 5e-4)
scheduler = optim.lr_scheduler.OneCycleLR(optimizer, max_lr=5e-4, steps_per_epoch=3, epochs=1, anneal_strategy="linear")
train(model, nn.CTCLoss(blank=28), optimizer, scheduler, epoch=1)
