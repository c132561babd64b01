"""With ctc_zero_infinity nobody sees that part of the transcripts do not fit to their clips: they teach nothing.

report: https://github.com/huggingface/transformers/pull/28582
record: zero-infinity-hides-data
expects: CTC301 too-short at step 0
"""

import json

import numpy as np
import torch
from transformers import HubertConfig, HubertForCTC, Trainer, TrainingArguments, Wav2Vec2CTCTokenizer

rng = np.random.default_rng(42)
words = "alpha bravo charlie delta echo foxtrot golf hotel india juliett kilo lima mike november oscar papa".split()
texts = [" ".join(rng.choice(words, rng.integers(1, 4))) for _ in range(24)]
# The speakers of every sixth clip hung up early.
seconds = [0.0025 * 0.9 * len(t) if i % 6 == 2 else 0.0025 * 2.5 * len(t) for i, t in enumerate(texts)]

alphabet = sorted(set("".join(texts)) - {" "})
with open("vocab.json", "w") as fp:
    json.dump({c: i for i, c in enumerate(["<pad>", "<unk>", "|", *alphabet])}, fp)
tokenizer = Wav2Vec2CTCTokenizer("vocab.json", bos_token=None, eos_token=None)

model = HubertForCTC(
    HubertConfig(
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        ctc_loss_reduction="mean",
        ctc_zero_infinity=True,
        feat_extract_norm="layer",
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        conv_dim=(8, 8),
        conv_kernel=(10, 8),
        conv_stride=(5, 4),
        num_feat_extract_layers=2,
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
        mask_time_prob=0.0,
    )
)
vectorized = [
    {"input_values": rng.standard_normal(int(s * 8000)).astype(np.float32), "labels": tokenizer(t).input_ids}
    for s, t in zip(seconds, texts)
]


def has_an_alignment(row):
    repeats = sum(a == b for a, b in zip(row["labels"], row["labels"][1:]))
    return model._get_feat_extract_output_lengths(len(row["input_values"])) >= len(row["labels"]) + repeats


# right: vectorized = list(filter(has_an_alignment, vectorized))


def collate(features):
    width = max(len(f["input_values"]) for f in features)
    values, mask = torch.zeros(len(features), width), torch.zeros(len(features), width, dtype=torch.long)
    labels = torch.full((len(features), max(len(f["labels"]) for f in features)), -100)
    for i, f in enumerate(features):
        values[i, : len(f["input_values"])] = torch.from_numpy(f["input_values"])
        mask[i, : len(f["input_values"])] = 1
        labels[i, : len(f["labels"])] = torch.tensor(f["labels"])
    return {"input_values": values, "attention_mask": mask, "labels": labels}


training_args = TrainingArguments(
    output_dir="hubert", per_device_train_batch_size=6, max_steps=3, train_sampling_strategy="sequential",
    logging_steps=1, report_to="none", save_strategy="no", use_cpu=True,
    disable_tqdm=True,
)  # fmt: skip
trainer = Trainer(
    model=model,
    args=training_args,
    data_collator=collate,
    train_dataset=vectorized,
    processing_class=tokenizer,
)
trainer.train()
