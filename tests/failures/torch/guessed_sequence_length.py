"""A constant for the number of frames, from the image width, one more than the model gives.

report: https://github.com/ypwhs/captcha_break/issues/29
record: too-long-ocr-width
expects: CTC302 beyond-time at step 0
raises: RuntimeError
"""

import random
import string

import torch
import torch.nn as nn
import torch.nn.functional as F

characters = "-" + string.digits + string.ascii_uppercase
width, height, n_len, n_classes = 192, 64, 4, len(characters)
n_input_length = 24  # right: n_input_length = 23


class CaptchaDataset(torch.utils.data.Dataset):
    def __init__(self, length):
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        random_str = "".join(random.choice(characters[1:]) for _ in range(n_len))
        target = torch.tensor([characters.find(x) for x in random_str], dtype=torch.long)
        input_length = torch.full(size=(1,), fill_value=n_input_length, dtype=torch.long)
        target_length = torch.full(size=(1,), fill_value=n_len, dtype=torch.long)
        return torch.rand(3, height, width), target, input_length, target_length


class Model(nn.Module):
    def __init__(self, n_classes):
        super().__init__()
        self.cnn = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=4), nn.ReLU())
        self.lstm = nn.LSTM(input_size=16 * 8, hidden_size=32, bidirectional=True)
        self.fc = nn.Linear(in_features=64, out_features=n_classes)

    def forward(self, x):
        x = self.cnn(x)
        x = x.reshape(x.shape[0], -1, x.shape[-1])[..., 1:]
        x = x.permute(2, 0, 1)
        return self.fc(self.lstm(x)[0])


model = Model(n_classes)
optimizer = torch.optim.Adam(model.parameters(), 1e-3, amsgrad=True)
for data, target, input_lengths, target_lengths in torch.utils.data.DataLoader(CaptchaDataset(8), batch_size=4):
    optimizer.zero_grad()
    output_log_softmax = F.log_softmax(model(data), dim=-1)
    loss = F.ctc_loss(output_log_softmax, target, input_lengths.flatten(), target_lengths.flatten())
    loss.backward()
    optimizer.step()
    print(loss.item())
