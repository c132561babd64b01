"""warp-ctc was replaced by nn.CTCLoss in a CRNN, and its softmax was not missed: 'a negative loss is common'.

report: https://github.com/novioleo/FOTS/issues/18
report: https://github.com/Holmeyoung/crnn-pytorch/issues/14
record: raw-logits-warpctc-port
expects: CTC402 raw-logits at step 0
"""

import random

import torch
from torch import nn, optim

alphabet = "0123456789abcdefghijklmnopqrstuvwxyz"


class strLabelConverter:
    def __init__(self, alphabet):
        self.dict = {char: i + 1 for i, char in enumerate(alphabet)}  # 0 is reserved for the blank

    def encode(self, texts):
        length = [len(text) for text in texts]
        return torch.IntTensor([self.dict[char] for text in texts for char in text]), torch.IntTensor(length)


class CRNN(nn.Module):
    def __init__(self, nclass, nh=32):
        super().__init__()
        self.cnn = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2, 2),
            nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d((4, 2)),
            nn.Conv2d(16, 32, 4), nn.ReLU(),
        )  # fmt: skip
        self.rnn = nn.LSTM(32, nh, bidirectional=True)
        self.embedding = nn.Linear(2 * nh, nclass)

    def forward(self, image):
        conv = self.cnn(image).squeeze(2).permute(2, 0, 1)  # [w, b, c]
        recurrent, _ = self.rnn(conv)
        return self.embedding(recurrent)


def random_word_image():
    text = "".join(random.choices(alphabet, k=random.randint(3, 7)))
    return torch.rand(1, 32, 100) - 0.5, text


converter = strLabelConverter(alphabet)
crnn = CRNN(len(alphabet) + 1)
criterion = nn.CTCLoss()
optimizer = optim.Adam(crnn.parameters(), lr=1e-4, betas=(0.5, 0.999))

for iteration in range(3):
    images, texts = zip(*[random_word_image() for _ in range(8)])
    text, length = converter.encode(texts)
    preds = crnn(torch.stack(images))
    preds_size = torch.IntTensor([preds.size(0)] * len(images))
    preds = preds.float()  # right: preds = preds.float().log_softmax(2)
    cost = criterion(preds, text, preds_size, length)
    crnn.zero_grad()
    cost.backward()
    optimizer.step()
    print(f"[0/25][{iteration}/3] Loss: {cost.item():f}")
