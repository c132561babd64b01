"""The filter wants one frame for each token, but two equal neighbours need a blank between them.

report: https://github.com/k2-fsa/icefall/issues/1777
record: repeats-not-counted
expects: CTC301 repeats at step 2
"""

import torch
from torch import nn

torch.manual_seed(1777)
TOKENS = ["<blk>", "SIL", *"aeioubdfgklmnprstvz"]


def remove_short_and_long_utt(cut):
    T = ((cut["num_frames"] - 7) // 2 + 1) // 2
    tokens = cut["tokens"]
    needed = len(tokens)  # right: needed = len(tokens) + sum(a == b for a, b in zip(tokens, tokens[1:]))
    if needed > T:
        print(f"Exclude cut with {T} frames after subsampling and {len(tokens)} tokens")
        return False
    return True


class Zipformer(nn.Module):
    def __init__(self, dim=48):
        super().__init__()
        self.conv = nn.Sequential(nn.Conv1d(80, dim, 7), nn.ReLU())
        self.out = nn.Linear(dim * 4, len(TOKENS))

    def forward(self, x, x_lens):
        x = self.conv(x)
        x = x[..., : x.shape[-1] // 4 * 4].transpose(1, 2)
        x = x.reshape(x.shape[0], x.shape[1] // 4, -1)
        return self.out(x), ((x_lens - 7) // 2 + 1) // 2


def cut(num_frames, text):
    return {"num_frames": num_frames, "tokens": [TOKENS.index(phone) for phone in text.split()]}


CUTS = [
    [cut(120, "SIL m a n o SIL"), cut(100, "t e l e v i z o r"), cut(90, "k a p p a")],
    [cut(120, "d o m SIL n a SIL b r e g u"), cut(110, "v r a t a"), cut(30, "t a k a v a l i p a n o")],
    [cut(130, "p e t SIL p i l"), cut(70, "m a m m a SIL l a SIL s a s s o f o n"), cut(40, "a a b b a d d a")],
    [cut(120, "z i m a"), cut(100, "s e s t r a"), cut(96, "b a b a")],
]
model = Zipformer()
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
for batch_idx, batch in enumerate(CUTS):
    cuts = [cut for cut in batch if remove_short_and_long_utt(cut)]
    x = torch.zeros(len(cuts), 80, max(cut["num_frames"] for cut in cuts))
    for row, item in zip(x, cuts):
        row[:, : item["num_frames"]] = torch.randn(80, item["num_frames"])
    ctc_output, encoder_out_lens = model(x, torch.tensor([item["num_frames"] for item in cuts]))
    loss = nn.functional.ctc_loss(
        log_probs=ctc_output.log_softmax(-1).permute(1, 0, 2),
        targets=torch.tensor([token for item in cuts for token in item["tokens"]]),
        input_lengths=encoder_out_lens,
        target_lengths=torch.tensor([len(item["tokens"]) for item in cuts]),
        reduction="sum",
    )
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(f"Epoch 1, batch {batch_idx}, loss[ctc_loss={loss.item():.4g}]")
