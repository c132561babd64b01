"""A loss of the trainer's own without blank=: class 0 serves as the blank, the padding of the tokenizer has another id.

report: https://github.com/SeanNaren/deepspeech.pytorch/issues/354
record: blank-index-hardcoded-zero
expects: CTC102 other-blank before training
"""

import json

import torch
import torch.nn.functional as F
from transformers import Trainer, TrainingArguments, Wav2Vec2CTCTokenizer, WavLMConfig, WavLMForCTC

labels = "abcdefg_hijklmnopqrstuvwxyz|?"  # shuffled by hand: "_" is at 7
with open("labels.json", "w") as f:
    json.dump({c: i for i, c in enumerate(labels)}, f)
tokenizer = Wav2Vec2CTCTokenizer("labels.json", pad_token="_", unk_token="?", bos_token=None, eos_token=None)


class ReweightedTrainer(Trainer):
    """Weights clips by how much their transcript is trusted."""

    def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
        trust, text = inputs.pop("trust"), inputs.pop("labels")
        logits = model(**inputs).logits
        lp = logits.log_softmax(-1).transpose(0, 1)
        T = torch.full((len(text),), len(lp))
        L = (text != -100).sum(-1)
        nll = F.ctc_loss(
            lp,
            text,
            T,
            L,
            reduction="none",
            # right: blank=tokenizer.pad_token_id,
        )
        return (trust * nll / L).mean()


torch.manual_seed(8)
texts = [
    "a black cab",
    "back at base",
    "jazz band",
    "half a cake",
    "can a cat fly",
    "i had a nap",
    "a gala",
    "add a dab",
]


def rows():
    for text in texts * 2:
        ids = tokenizer(text).input_ids
        yield {"input_values": torch.randn(1500), "labels": ids + [-100] * (14 - len(ids)), "trust": 0.5}


def collate(batch):
    return {
        "input_values": torch.stack([row["input_values"] for row in batch]),
        "labels": torch.tensor([row["labels"] for row in batch]),
        "trust": torch.tensor([row["trust"] for row in batch]),
    }


config = WavLMConfig(
    vocab_size=len(labels), pad_token_id=tokenizer.pad_token_id, hidden_size=16, num_hidden_layers=1,
    num_attention_heads=2, intermediate_size=32, conv_dim=(8, 8), conv_stride=(5, 4), conv_kernel=(8, 4),
    num_feat_extract_layers=2, num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2, mask_time_prob=0.0,
)  # fmt: skip
trainer = ReweightedTrainer(
    WavLMForCTC(config),
    TrainingArguments(
        "trusted", max_steps=3, per_device_train_batch_size=4, remove_unused_columns=False, logging_steps=1,
        save_strategy="no", report_to="none", use_cpu=True, disable_tqdm=True,
    ),
    train_dataset=list(rows()),
    data_collator=collate,
    processing_class=tokenizer,
)  # fmt: skip
trainer.train()
