"""A clip of zeros is divided by its own deviation, which is 0: one such clip ends the training.

report: https://github.com/SeanNaren/deepspeech.pytorch/issues/272
record: silent-audio-nan
expects: CTC403 non-finite-features at step 2
"""

import torch
import torch.nn as nn

SAMPLE_RATE, WINDOW_SIZE, WINDOW_STRIDE = 4000, 0.02, 0.01


class AudioParser:
    def __init__(self, normalize=True):
        self.normalize = normalize
        self.window = torch.hamming_window(int(SAMPLE_RATE * WINDOW_SIZE))

    def parse_audio(self, y):
        n_fft = int(SAMPLE_RATE * WINDOW_SIZE)
        D = torch.stft(y, n_fft, hop_length=int(SAMPLE_RATE * WINDOW_STRIDE), window=self.window, return_complex=True)
        spect = torch.log1p(D.abs())
        if self.normalize:
            mean, std = spect.mean(), spect.std()
            spect = (spect - mean) / std  # right: spect = (spect - mean) / (std + 1e-5)
        return spect.T


def common_voice(n):
    for i in range(n):
        seconds = 0.5 + 0.05 * (i % 4)
        time = torch.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
        wave = torch.sin(2 * torch.pi * (200 + 60 * i) * time) + 0.05 * torch.randn(len(time))
        yield torch.zeros_like(wave) if i == 9 else wave, torch.randint(1, 29, (5 + i % 3,))


parser = AudioParser()
samples = [(parser.parse_audio(wave), text) for wave, text in common_voice(16)]
rnn, fc = nn.LSTM(41, 32, batch_first=True), nn.Linear(32, 29)
optimizer = torch.optim.SGD([*rnn.parameters(), *fc.parameters()], lr=1e-2, momentum=0.9)
criterion = nn.CTCLoss(reduction="sum")
for start in range(0, len(samples), 4):
    spects, texts = zip(*samples[start : start + 4])
    inputs = nn.utils.rnn.pad_sequence(spects, batch_first=True)
    sizes, text_sizes = (torch.tensor([len(item) for item in items]) for items in (spects, texts))
    out = fc(rnn(inputs)[0]).log_softmax(-1)
    loss = criterion(out.transpose(0, 1), torch.cat(texts), sizes, text_sizes) / len(spects)
    optimizer.zero_grad()
    if loss.item() == float("inf"):
        print("WARNING: received an inf loss, setting loss value to 0")
        continue
    loss.backward()
    optimizer.step()
    print(f"Loss {loss.item():.4f}")
