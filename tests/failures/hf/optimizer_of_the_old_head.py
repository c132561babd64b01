"""The head was replaced by one for another language after the optimizer had been made: it never learns.

report: https://github.com/jonatasgrosman/huggingsound/issues/83
record: lm-head-size-mismatch-at-load
expects: CTC603 not-in-optimizer at step 4
"""

import torch
from transformers import Trainer, TrainingArguments, Wav2Vec2Config, Wav2Vec2ForCTC, get_linear_schedule_with_warmup

torch.manual_seed(0)
french = ["<pad>", "<unk>", "|", *"abcdefghijklmnopqrstuvwxyzàâçéèêëîïôùûü"]
config = Wav2Vec2Config(
    vocab_size=32, pad_token_id=0, ctc_loss_reduction="mean", hidden_size=16, intermediate_size=32,
    num_hidden_layers=1, num_attention_heads=2, conv_dim=(8, 8), conv_kernel=(10, 4), conv_stride=(5, 4),
    num_feat_extract_layers=2, num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2, mask_time_prob=0.0,
    final_dropout=0.0, hidden_dropout=0.0, attention_dropout=0.0, layerdrop=0.0,
)  # fmt: skip
model = Wav2Vec2ForCTC(config)  # the English checkpoint
model.freeze_feature_encoder()


def grouped_parameters(model, weight_decay=0.01):
    decay = [p for n, p in model.named_parameters() if p.requires_grad and not n.endswith("bias")]
    plain = [p for n, p in model.named_parameters() if p.requires_grad and n.endswith("bias")]
    return [{"params": decay, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]


optimizer = torch.optim.AdamW(grouped_parameters(model), lr=3e-4)
schedule = get_linear_schedule_with_warmup(optimizer, num_warmup_steps=2, num_training_steps=6)
model.lm_head = torch.nn.Linear(16, len(french))
model.config.vocab_size = len(french)
# right: optimizer.param_groups[0]["params"] += list(model.lm_head.parameters())

sentences = [
    "où est la gare",
    "il fait froid",
    "à demain",
    "très bien",
    "ça va",
    "un café noir",
    "voilà",
    "bon appétit",
]
dataset = [
    {"input_values": torch.randn(1400), "labels": [french.index(c) for c in text.replace(" ", "|")]}
    for text in sentences * 3
]


def collate(rows):
    longest = max(len(row["labels"]) for row in rows)
    return {
        "input_values": torch.stack([row["input_values"] for row in rows]),
        "labels": torch.tensor([row["labels"] + [-100] * (longest - len(row["labels"])) for row in rows]),
    }


args = TrainingArguments(
    "french", per_device_train_batch_size=4, max_steps=6, logging_steps=2, save_strategy="no", report_to="none",
    use_cpu=True, disable_tqdm=True,
)  # fmt: skip
trainer = Trainer(model, args, collate, dataset, optimizers=(optimizer, schedule))
trainer.train()
