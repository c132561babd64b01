"""A narrower head was put in by hand, and config.vocab_size still is that of the old one: labels go unchecked.

report: https://github.com/huggingface/transformers/issues/12270
record: label-out-of-range-hf-silent
expects: CTC104 config-wider-than-head before training
"""

import json

import torch
from transformers import (
    Trainer,
    TrainingArguments,
    Wav2Vec2Config,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2ForCTC,
    default_data_collator,
)

# What a checkpoint for 64 characters would bring.
pretrained = Wav2Vec2ForCTC(
    Wav2Vec2Config(
        vocab_size=64, hidden_size=20, intermediate_size=20, num_hidden_layers=1, num_attention_heads=2,
        conv_dim=(10, 10), conv_kernel=(10, 8), conv_stride=(5, 8), num_feat_extract_layers=2, pad_token_id=0,
        num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2, ctc_loss_reduction="mean", mask_time_prob=0.0,
    )
)  # fmt: skip

digits = ["_", "?", "|", "0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]
with open("digits.json", "w") as out:
    json.dump(dict(zip(digits, range(len(digits)))), out)
tok = Wav2Vec2CTCTokenizer("digits.json", pad_token="_", unk_token="?", bos_token=None, eos_token=None)

model = pretrained
model.lm_head = torch.nn.Linear(model.config.hidden_size, len(tok))
# right: model.config.vocab_size = len(tok)
model.freeze_feature_encoder()


class Numbers(torch.utils.data.Dataset):
    texts = ["12 90", "7", "44 6", "301", "88", "5 5 5", "20 04", "963", "18", "6 72", "30", "1 1"]

    def __len__(self):
        return len(self.texts)

    def __getitem__(self, i):
        labels = tok(self.texts[i], padding="max_length", max_length=6, return_tensors="pt").input_ids[0]
        return {"input_values": torch.randn(1280), "labels": labels.masked_fill(labels == tok.pad_token_id, -100)}


training_args = TrainingArguments(
    "numbers", max_steps=4, per_device_train_batch_size=4, save_strategy="no", report_to="none", use_cpu=True,
    disable_tqdm=True, logging_steps=1,
)  # fmt: skip
trainer = Trainer(model, training_args, default_data_collator, Numbers(), processing_class=tok)
trainer.train()
