"""An upper-case vocabulary and lower-case transcripts: every letter is <unk>, and the loss falls beautifully.

report: https://github.com/jonatasgrosman/huggingsound/issues/20
record: case-mismatch-all-unk
expects: CTC105 letter-case at step 0
"""

import json

import numpy as np
import torch
from transformers import (
    Trainer,
    TrainingArguments,
    Wav2Vec2Config,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    Wav2Vec2Processor,
)

tokens = ["<pad>", "<s>", "</s>", "<unk>", "|"] + list("ETAONIHSRDLUMWCFGYPBVK'XJQZ")
with open("vocab.json", "w") as file:
    json.dump(dict(zip(tokens, range(len(tokens)))), file)
processor = Wav2Vec2Processor(Wav2Vec2FeatureExtractor(), Wav2Vec2CTCTokenizer("vocab.json"))

rng = np.random.default_rng(12)
transcriptions = [
    "extraordinary", "the quick fox", "i don't know", "shall we begin", "one more time", "nothing at all",
    "just a moment", "down the road", "yes of course", "between us", "an old friend", "keep going",
]  # fmt: skip
samples = [{"transcription": t, "array": rng.normal(0, 0.1, 120 * len(t)).astype("float32")} for t in transcriptions]


def prepare_dataset(sample):
    text = sample["transcription"]  # right: text = sample["transcription"].upper()
    return {
        "input_values": processor(sample["array"], sampling_rate=16000).input_values[0],
        "labels": processor(text=text).input_ids,
    }


def data_collator(features):
    batch = processor.pad([{"input_values": f["input_values"]} for f in features], padding=True, return_tensors="pt")
    labels = processor.tokenizer.pad([{"input_ids": f["labels"]} for f in features], return_tensors="pt")
    batch["labels"] = torch.where(labels["attention_mask"] == 1, labels["input_ids"], -100)
    return batch


config = Wav2Vec2Config(
    vocab_size=len(tokens), pad_token_id=0, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
    num_attention_heads=2, conv_dim=(8, 8), conv_kernel=(10, 4), conv_stride=(5, 4), num_feat_extract_layers=2,
    num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2, mask_time_prob=0.0, ctc_loss_reduction="mean",
)  # fmt: skip
trainer = Trainer(
    model=Wav2Vec2ForCTC(config),
    args=TrainingArguments(
        "huggingsound", per_device_train_batch_size=4, num_train_epochs=1, learning_rate=3e-4, logging_steps=1,
        save_strategy="no", report_to="none", use_cpu=True, disable_tqdm=True,
    ),
    train_dataset=list(map(prepare_dataset, samples)),
    data_collator=data_collator,
    processing_class=processor,
)  # fmt: skip
trainer.train()
