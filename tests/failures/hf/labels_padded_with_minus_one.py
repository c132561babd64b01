"""Labels padded with -1, which the loss of transformers does not mask: class -1 reaches the kernel.

report: https://github.com/huggingface/transformers/pull/10145
record: hf-forctcloss-drops-blank-keeps-minus-one
expects: CTC202 padding at step 0
"""

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import HubertConfig, HubertForCTC, Trainer, TrainingArguments

PHONES = ["<blank>", "aa", "ae", "b", "d", "eh", "g", "ih", "k", "l", "m", "n", "s", "t", "uw", "z"]
generator = torch.Generator().manual_seed(3)


def recording(number):
    phones = 4 + number % 5
    return {
        "audio": torch.randn(60 * 20 + 40 * number, generator=generator),
        "phones": torch.randint(1, len(PHONES), (phones,), generator=generator),
    }


def collate(batch):
    batch = sorted(batch, key=lambda item: len(item["phones"]), reverse=True)
    audio = pad_sequence([item["audio"] for item in batch], batch_first=True)
    lengths = torch.tensor([len(item["audio"]) for item in batch])
    labels = [item["phones"] for item in batch]
    return {
        "input_values": audio,
        "attention_mask": (torch.arange(audio.shape[1])[None] < lengths[:, None]).long(),
        "labels": pad_sequence(labels, True, -1),  # right: "labels": pad_sequence(labels, True, -100),
    }


config = HubertConfig(
    vocab_size=len(PHONES), pad_token_id=0, ctc_loss_reduction="mean", feat_extract_norm="layer", conv_bias=True,
    hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2, conv_dim=(16, 16),
    conv_kernel=(10, 4), conv_stride=(5, 4), num_feat_extract_layers=2, num_conv_pos_embeddings=6,
    num_conv_pos_embedding_groups=2, mask_time_prob=0.0, hidden_dropout=0.0, attention_dropout=0.0, layerdrop=0.0,
)  # fmt: skip
arguments = TrainingArguments(
    "hubert-phones", max_steps=3, per_device_train_batch_size=4, logging_steps=1, learning_rate=3e-4,
    remove_unused_columns=False, save_strategy="no", report_to=[], use_cpu=True, disable_tqdm=True,
)  # fmt: skip
trainer = Trainer(
    HubertForCTC(config), arguments, train_dataset=[recording(n) for n in range(16)], data_collator=collate
)
print(trainer.train())
