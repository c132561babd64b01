"""The loader gives every clip the first transcript of the corpus: the model learns one sentence by heart.

report: https://github.com/huggingface/datasets/issues/2913
record: constant-labels
expects: CTC206 one-transcript at step 15
"""

import json

import torch
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments, Wav2Vec2Config, Wav2Vec2CTCTokenizer, Wav2Vec2ForCTC

torch.manual_seed(14)
prompts = [
    "would such an act be useful", "she had your dark suit", "don't ask me to carry", "the old rag is oily",
    "bright sunshine shimmers", "nothing is as offensive", "how permanent are they", "don't do charlie's dirty",
    "the fish began to leap", "gregory and tom chose", "alice's ability to work", "cliff's display was bad",
]  # fmt: skip
with open("vocab.json", "w") as f:
    json.dump({c: i for i, c in enumerate(["[PAD]", "[UNK]", "|", "'", *"abcdefghijklmnopqrstuvwxyz"])}, f)
tokenizer = Wav2Vec2CTCTokenizer("vocab.json", unk_token="[UNK]", pad_token="[PAD]", bos_token=None, eos_token=None)


class Timit(Dataset):
    def __init__(self):
        self.clips = [torch.randn(1000 + 40 * (7 * i % 24)) for i in range(72)]
        self.text = [prompts[i % len(prompts)] for i in range(72)]

    def __len__(self):
        return len(self.clips)

    def __getitem__(self, i):
        text = self.text[0]  # right: text = self.text[i]
        labels = tokenizer(text, padding="max_length", max_length=32, return_tensors="pt").input_ids[0]
        return {"input_values": self.clips[i], "labels": labels}


def collate(batch):
    labels = torch.stack([item["labels"] for item in batch])
    labels[labels == tokenizer.pad_token_id] = -100
    clips = [item["input_values"] for item in batch]
    mask = [torch.ones(len(clip), dtype=torch.long) for clip in clips]
    pad = torch.nn.utils.rnn.pad_sequence
    return {"input_values": pad(clips, True), "attention_mask": pad(mask, True), "labels": labels}


config = Wav2Vec2Config(
    vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, ctc_loss_reduction="mean", hidden_size=16,
    feat_extract_norm="layer", intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, conv_dim=(8, 8),
    conv_kernel=(10, 4), conv_stride=(5, 4), num_feat_extract_layers=2, num_conv_pos_embeddings=4,
    num_conv_pos_embedding_groups=2, mask_time_prob=0.0,
)  # fmt: skip
args = TrainingArguments(
    "timit", num_train_epochs=1, per_device_train_batch_size=4, logging_steps=6, save_strategy="no",
    report_to="none", use_cpu=True, disable_tqdm=True,
)  # fmt: skip
Trainer(Wav2Vec2ForCTC(config), args, collate, Timit(), processing_class=tokenizer).train()
