"""The blank is put at both ends of every target and between the words: the loss falls below zero, 'as intended'.

report: https://github.com/yl4579/AuxiliaryASR/issues/4
report: https://github.com/yl4579/StyleTTS2/issues/236
record: blank-in-targets-auxiliaryasr
expects: CTC203 blank-index at step 0
"""

import random

import torch
from torch import nn

symbols = [" ", "a", "b", "d", "e", "f", "ɡ", "h", "i", "k", "l", "m", "n", "ŋ", "o", "p", "s", "t", "u", "v", "w", "z"]
word_index_dictionary = {symbol: i for i, symbol in enumerate(symbols)}
LEXICON = {"cat": "kat", "big": "biɡ", "song": "soŋ", "dog": "doɡ", "when": "wen", "has": "haz", "fun": "fun"}


class FilelistDataset(torch.utils.data.Dataset):
    def __init__(self, n):
        self.lines = [random.sample(sorted(LEXICON), random.randint(2, 4)) for _ in range(n)]

    def __len__(self):
        return len(self.lines)

    def __getitem__(self, idx):
        ps = [LEXICON[word] for word in self.lines[idx]]
        if "'" in ps:
            ps.remove("'")
        text = [word_index_dictionary[p] for p in "".join(ps)]
        blank_index = word_index_dictionary[" "]
        text = [blank_index, *(word_index_dictionary[p] for p in " ".join(ps)), blank_index]  # right:
        return torch.randn(80, 12 * len(text)), torch.LongTensor(text)


class Collater:
    def __call__(self, batch):
        batch_size = len(batch)
        mel_size, text_size = max(b[0].shape[1] for b in batch), max(b[1].shape[0] for b in batch)
        mels = torch.zeros((batch_size, 80, mel_size))
        texts = torch.zeros((batch_size, text_size)).long()
        input_lengths, output_lengths = torch.zeros(batch_size).long(), torch.zeros(batch_size).long()
        for bid, (mel, text) in enumerate(batch):
            mels[bid, :, : mel.size(1)], texts[bid, : text.size(0)] = mel, text
            input_lengths[bid], output_lengths[bid] = text.size(0), mel.size(1)
        return texts, input_lengths, mels, output_lengths


class ASRCNN(nn.Module):
    n_down = 1

    def __init__(self, n_token, hidden=32):
        super().__init__()
        self.init_cnn = nn.Conv1d(80, hidden, 7, stride=2, padding=3)
        self.cnns = nn.Sequential(nn.LeakyReLU(), nn.GroupNorm(1, hidden), nn.Conv1d(hidden, hidden, 3, padding=1))
        self.ctc_linear = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, n_token))

    def forward(self, x):
        return self.ctc_linear(self.cnns(self.init_cnn(x)).transpose(1, 2))


random.seed(1)
loader = torch.utils.data.DataLoader(FilelistDataset(12), batch_size=4, collate_fn=Collater())
model = ASRCNN(len(symbols))
optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4)
ctc = nn.CTCLoss(blank=word_index_dictionary[" "], zero_infinity=True)
for text_input, text_input_length, mel_input, mel_input_length in loader:
    optimizer.zero_grad()
    ppgs = model(mel_input)
    loss_ctc = ctc(
        ppgs.log_softmax(dim=2).transpose(0, 1),
        text_input,
        torch.div(mel_input_length, 2**model.n_down, rounding_mode="trunc"),
        text_input_length,
    )
    loss_ctc.backward()
    nn.utils.clip_grad_value_(model.parameters(), 5)
    optimizer.step()
    print({"train/ctc": round(loss_ctc.item(), 4)})
