"""One clip was cut before its sentence ended: fewer frames than letters, an infinite loss, and NaN in every weight.

report: https://github.com/SeanNaren/deepspeech.pytorch/issues/94
record: too-long-asr-subsampling
expects: CTC301 too-short at step 2
"""

import torch
from torch.nn.functional import pad
from transformers import Trainer, TrainingArguments, Wav2Vec2Config, Wav2Vec2ForCTC

torch.manual_seed(5)
LETTERS = "_|'abcdefghijklmnopqrstuvwxyz"

segments = [  # start and end in seconds, what was said
    (0.00, 0.22, "good morning"), (0.22, 0.38, "i am here"), (0.38, 0.60, "where is it"), (0.60, 0.79, "on the desk"),
    (0.79, 0.95, "thank you"), (0.95, 1.10, "not at all"), (1.10, 1.21, "goodbye"), (1.21, 1.45, "see you later"),
    (1.45, 1.60, "wait here"), (1.60, 1.61, "did you lock it"), (1.61, 1.80, "of course"), (1.80, 1.99, "let us go"),
    (1.99, 2.12, "hurry up"), (2.12, 2.31, "the bus is in"), (2.31, 2.48, "two seats"), (2.48, 2.60, "over here"),
]  # fmt: skip
recording = torch.randn(int(2.7 * 8000))


class Segments(torch.utils.data.Dataset):
    def __init__(self, rows):
        self.rows = [(recording[int(start * 8000) : int(end * 8000)], text) for start, end, text in rows]

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        audio, text = self.rows[i]
        return {"audio": audio, "labels": [LETTERS.index(c) for c in text.replace(" ", "|")]}


def pad_batch(items):
    samples = torch.tensor([len(item["audio"]) for item in items])
    longest, most = int(samples.max()), max(len(item["labels"]) for item in items)
    return {
        "input_values": torch.stack([pad(item["audio"], (0, longest - len(item["audio"]))) for item in items]),
        "attention_mask": (torch.arange(longest) < samples[:, None]).long(),
        "labels": torch.stack(
            [pad(torch.tensor(x["labels"]), (0, most - len(x["labels"])), value=-100) for x in items]
        ),
    }


model = Wav2Vec2ForCTC(
    Wav2Vec2Config(
        vocab_size=len(LETTERS), ctc_loss_reduction="mean", feat_extract_norm="layer", do_stable_layer_norm=True,
        hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, conv_dim=(16, 16),
        conv_kernel=(10, 4), conv_stride=(5, 4), num_feat_extract_layers=2, num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2, mask_time_prob=0.0,
    )
)  # fmt: skip


def long_enough(segment):
    start, end, text = segment
    frames = model._get_feat_extract_output_lengths(int((end - start) * 8000))
    return frames >= len(text) + sum(a == b for a, b in zip(text, text[1:]))


# right: segments = [segment for segment in segments if long_enough(segment)]
args = TrainingArguments(
    "segments", per_device_train_batch_size=4, max_steps=4, train_sampling_strategy="sequential", logging_steps=1,
    max_grad_norm=1.0, remove_unused_columns=False, save_strategy="no", report_to="none", use_cpu=True,
    disable_tqdm=True,
)  # fmt: skip
Trainer(model, args, pad_batch, Segments(segments)).train()
