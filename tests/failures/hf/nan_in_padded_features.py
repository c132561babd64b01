"""Features padded with the log of 0: losses stay right, for padded frames are not read, and the gradient is NaN.

report: https://github.com/huggingface/transformers/issues/19044
record: nan-gradient-poisoning
expects: CTC601 backward at step 0
"""

import numpy as np
import torch
from transformers import Trainer, TrainingArguments, Wav2Vec2BertConfig, Wav2Vec2BertForCTC

rng = np.random.default_rng(9)
SYLLABLES = 20
MELS = 16


def mel_spectrogram(frames):
    return rng.gamma(2.0, 1.0, (frames, MELS)).astype(np.float32)


class Clips:
    def __init__(self, count):
        self.items = []
        for _ in range(count):
            labels = rng.integers(1, SYLLABLES, rng.integers(3, 7))
            self.items.append((mel_spectrogram(int(rng.integers(30, 50))), labels))

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        return self.items[i]


def collate(clips):
    frames = [len(mel) for mel, _ in clips]
    counts = [len(labels) for _, labels in clips]
    mels = np.zeros((len(clips), max(frames), MELS), np.float32)
    labels = np.full((len(clips), max(counts)), -100)
    for i, (mel, ids) in enumerate(clips):
        mels[i, : len(mel)] = mel
        labels[i, : len(ids)] = ids
    with np.errstate(divide="ignore"):
        features = np.log(mels)  # right: features = np.log(mels + 1e-6)
    mask = np.arange(max(frames)) < np.array(frames)[:, None]
    batch = {"input_features": features, "attention_mask": mask.astype(np.int64), "labels": labels}
    return {name: torch.from_numpy(array) for name, array in batch.items()}


model = Wav2Vec2BertForCTC(
    Wav2Vec2BertConfig(
        vocab_size=SYLLABLES, pad_token_id=0, ctc_loss_reduction="mean", feature_projection_input_dim=MELS,
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, conv_depthwise_kernel_size=5,
        mask_time_prob=0.0, layerdrop=0.0,
    )
)  # fmt: skip
arguments = TrainingArguments(
    output_dir="syllables", max_steps=4, per_device_train_batch_size=4, learning_rate=2e-4, logging_steps=2,
    save_strategy="no", report_to="none", use_cpu=True, disable_tqdm=True,
)  # fmt: skip
trainer = Trainer(model=model, args=arguments, train_dataset=Clips(16), data_collator=collate)
trainer.train()
