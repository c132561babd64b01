"""A loss of the trainer's own, in which log_softmax runs over the frames: positive, finite, and no distribution.

report: https://github.com/fxia22/pointnet.pytorch/issues/27
record: softmax-wrong-axis
expects: CTC402 wrong-axis at step 0
"""

import torch
from torch.nn import functional
from transformers import HubertConfig, HubertForCTC, Trainer, TrainingArguments

torch.manual_seed(21)


class CTCTrainer(Trainer):
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        frames = model._get_feat_extract_output_lengths(inputs["attention_mask"].sum(-1))
        logits = outputs.logits.transpose(0, 1)
        log_probs = functional.log_softmax(logits, dim=0)  # right: log_probs = functional.log_softmax(logits, dim=2)
        mask = labels >= 0
        loss = functional.ctc_loss(log_probs, labels[mask], frames, mask.sum(-1), blank=0, zero_infinity=True)
        return (loss, outputs) if return_outputs else loss


class Spoken(torch.utils.data.IterableDataset):
    def __iter__(self):
        for _ in range(24):
            samples = int(torch.randint(1000, 1400, ()))
            yield {"audio": torch.randn(samples), "ids": torch.randint(1, 30, (int(torch.randint(4, 12, ())),))}


def collate(rows):
    audio = torch.nn.utils.rnn.pad_sequence([row["audio"] for row in rows], batch_first=True)
    lengths = torch.tensor([len(row["audio"]) for row in rows])
    return {
        "input_values": audio,
        "attention_mask": (torch.arange(audio.size(1)) < lengths.unsqueeze(1)).long(),
        "labels": torch.nn.utils.rnn.pad_sequence([row["ids"] for row in rows], True, -100),
    }


model = HubertForCTC(
    HubertConfig(
        vocab_size=30, hidden_size=20, intermediate_size=20, num_hidden_layers=1, num_attention_heads=2,
        feat_extract_norm="layer", conv_dim=(12, 12), conv_kernel=(10, 4), conv_stride=(5, 4), mask_time_prob=0.0,
        num_feat_extract_layers=2, num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2, layerdrop=0.0,
    )
)  # fmt: skip
CTCTrainer(
    model=model,
    args=TrainingArguments(
        "spoken", max_steps=4, per_device_train_batch_size=6, save_strategy="no", logging_steps=1, report_to="none",
        remove_unused_columns=False, use_cpu=True, disable_tqdm=True,
    ),
    train_dataset=Spoken(),
    data_collator=collate,
).train()  # fmt: skip
