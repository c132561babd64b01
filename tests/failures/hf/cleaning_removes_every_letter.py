"""Upper-case transcripts, and a cleaning that keeps lower-case letters only: every label is -100.

report: https://github.com/huggingface/transformers/pull/10145
record: all-minus-100-labels
expects: CTC204 all-empty at step 15
"""

import json
import re

import numpy as np
from transformers import (
    Trainer,
    TrainingArguments,
    Wav2Vec2Config,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    Wav2Vec2Processor,
    set_seed,
)

set_seed(1)
common_voice = [
    {"sentence": "HE WENT HOME.", "seconds": 0.10},
    {"sentence": "WHO IS THERE?", "seconds": 0.11},
    {"sentence": "IT'S LATE!", "seconds": 0.09},
    {"sentence": "BRING SOME TEA, PLEASE.", "seconds": 0.14},
    {"sentence": "THE DOG BARKED.", "seconds": 0.12},
    {"sentence": "A ROSE IS A ROSE.", "seconds": 0.12},
    {"sentence": "NOBODY KNEW.", "seconds": 0.10},
    {"sentence": "WE LEFT AT DAWN.", "seconds": 0.13},
]
unwanted = re.compile("[^a-z ]")  # right: unwanted = re.compile("[^A-Z ]")


def clean(row):
    row["text"] = unwanted.sub("", row["sentence"]).strip()
    return row


dataset = list(map(clean, common_voice))
vocabulary = ["<pad>", "<unk>", "|"] + sorted(set("ABCDEFGHIJKLMNOPQRSTUVWXYZ"))
with open("vocab.json", "w") as f:
    json.dump({symbol: index for index, symbol in enumerate(vocabulary)}, f)

tokenizer = Wav2Vec2CTCTokenizer("vocab.json", pad_token="<pad>", unk_token="<unk>", word_delimiter_token="|")
processor = Wav2Vec2Processor(Wav2Vec2FeatureExtractor(sampling_rate=8000), tokenizer)


def collate(rows):
    audio = [np.random.uniform(-1, 1, int(row["seconds"] * 8000)).astype(np.float32) for row in rows]
    batch = processor(audio, sampling_rate=8000, padding=True, return_tensors="pt")
    texts = [row["text"] for row in rows]
    targets = tokenizer(texts, padding="max_length", max_length=24, return_tensors="pt")
    batch["labels"] = targets["input_ids"].masked_fill(targets["attention_mask"] == 0, -100)
    return batch


config = Wav2Vec2Config(
    vocab_size=len(vocabulary), pad_token_id=0, ctc_loss_reduction="mean", hidden_size=16, intermediate_size=16,
    num_hidden_layers=1, num_attention_heads=1, conv_dim=(8, 8), conv_kernel=(10, 4), conv_stride=(5, 4),
    num_feat_extract_layers=2, num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=1, mask_time_prob=0.0,
)  # fmt: skip
arguments = TrainingArguments(
    output_dir="checkpoints", per_device_train_batch_size=4, num_train_epochs=8, remove_unused_columns=False,
    save_strategy="no", logging_steps=1, report_to="none", use_cpu=True, disable_tqdm=True,
)  # fmt: skip
trainer = Trainer(
    model=Wav2Vec2ForCTC(config),
    args=arguments,
    data_collator=collate,
    train_dataset=dataset,
    processing_class=processor.feature_extractor,
)
trainer.train()
