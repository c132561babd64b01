"""Transcripts from another system come decomposed, the vocabulary is composed: they look the same, and all is unknown.

report: https://github.com/mozilla/DeepSpeech/issues/1099
record: deepspeech-oov-char
expects: CTC105 wrong-alphabet at step 0
"""

import json
import unicodedata

import numpy as np
import torch
from transformers import Trainer, TrainingArguments, Wav2Vec2Config, Wav2Vec2CTCTokenizer, Wav2Vec2ForCTC

train = [
    "안녕 하세요",
    "감사 합니다",
    "다시 만나요",
    "오늘 날씨",
    "하나 둘 셋",
    "좋은 아침",
    "서울 날씨",
    "만나서 좋은",
]
syllables = sorted(set("".join(train)) - {" "})
vocab = {s: i for i, s in enumerate(["[PAD]", "[UNK]", "|", *syllables])}
with open("vocab.json", "w", encoding="utf-8") as f:
    json.dump(vocab, f, ensure_ascii=False)
tokenizer = Wav2Vec2CTCTokenizer("vocab.json", unk_token="[UNK]", pad_token="[PAD]")
exported = [unicodedata.normalize("NFD", line) for line in train]  # file names and texts of a Mac

rng = np.random.default_rng(1)
rows = []
for line in exported * 2:
    line = line.strip()  # right: line = unicodedata.normalize("NFC", line.strip())
    rows.append({"input_values": rng.normal(size=1300).astype(np.float32), "labels": tokenizer(line).input_ids})


def collate(rows):
    width = max(len(row["labels"]) for row in rows)
    return {
        "input_values": torch.tensor(np.stack([row["input_values"] for row in rows])),
        "labels": torch.tensor([row["labels"] + [-100] * (width - len(row["labels"])) for row in rows]),
    }


config = Wav2Vec2Config(
    vocab_size=len(vocab) + 2, pad_token_id=0, ctc_loss_reduction="mean", hidden_size=16, intermediate_size=16,
    num_hidden_layers=1, num_attention_heads=2, conv_dim=(8, 8), conv_kernel=(10, 4), conv_stride=(5, 4),
    num_feat_extract_layers=2, num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2, mask_time_prob=0.0,
)  # fmt: skip
trainer = Trainer(
    Wav2Vec2ForCTC(config),
    TrainingArguments(
        "zeroth", max_steps=3, per_device_train_batch_size=4, save_strategy="no", logging_steps=1, report_to="none",
        use_cpu=True, disable_tqdm=True,
    ),
    collate,
    rows,
    processing_class=tokenizer,
)  # fmt: skip
trainer.train()
