"""One symbol for unknown characters and for padding: every unknown character counts as a blank.

report: https://github.com/sooftware/kospeech/issues/111
record: blank-id-wrong-or-none
expects: CTC102 special-symbol before training
"""

import json

import numpy as np
import torch
from transformers import Trainer, TrainingArguments, Wav2Vec2CTCTokenizer, WavLMConfig, WavLMForCTC

np.random.seed(11)
TEXTS = [
    "seoul is a big city", "we met at noon", "the train was late", "it rains again", "tea or water", "come in please",
    "no one is here", "read it aloud", "he sings well", "open the window", "a small garden", "call me tonight",
]  # fmt: skip

vocab = {"|": 0}
for letter in "abcdefghijklmnopqrstuvwxyz":
    vocab[letter] = len(vocab)
vocab["[UNK]"] = len(vocab)
vocab["[PAD]"] = len(vocab)
with open("vocab.json", "w", encoding="utf-8") as file:
    json.dump(vocab, file)

tokenizer = Wav2Vec2CTCTokenizer.from_pretrained(
    ".",
    unk_token="[UNK]",
    pad_token="[UNK]",  # right: pad_token="[PAD]",
    word_delimiter_token="|",
)

config = WavLMConfig(
    vocab_size=len(tokenizer),
    pad_token_id=tokenizer.pad_token_id,
    ctc_loss_reduction="mean",
    hidden_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=32,
    conv_dim=[12, 12],
    conv_stride=[5, 4],
    conv_kernel=[8, 4],
    num_feat_extract_layers=2,
    num_conv_pos_embeddings=4,
    num_conv_pos_embedding_groups=2,
    mask_time_prob=0.0,
    layerdrop=0.0,
)
model = WavLMForCTC(config)


def features(text):
    wave = np.random.randn(1600).astype("float32")
    return {"input_values": (wave - wave.mean()) / wave.std(), "labels": tokenizer(text).input_ids}


def collator(rows):
    longest = max(len(row["labels"]) for row in rows)
    labels = np.full((len(rows), longest), -100)
    for target, row in zip(labels, rows):
        target[: len(row["labels"])] = row["labels"]
    values = torch.tensor(np.stack([row["input_values"] for row in rows]))
    return {"input_values": values, "labels": torch.tensor(labels)}


trainer = Trainer(
    model=model,
    data_collator=collator,
    args=TrainingArguments(
        output_dir="wavlm", max_steps=4, per_device_train_batch_size=3, learning_rate=5e-4, report_to="none",
        save_strategy="no", logging_steps=2, use_cpu=True, disable_tqdm=True,
    ),
    train_dataset=[features(text) for text in TEXTS],
    processing_class=tokenizer,
)  # fmt: skip
trainer.train()
