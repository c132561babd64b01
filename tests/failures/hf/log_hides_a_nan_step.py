"""A second loss is the mean of an empty selection: the step is NaN, and the trainer logs 0.0 from then on.

report: https://github.com/huggingface/transformers/pull/13619
record: hf-trainer-hides-nan
expects: CTC507 nan-filtered at step 2
"""

import torch
from transformers import Trainer, TrainingArguments, WavLMConfig, WavLMForCTC

torch.manual_seed(2)
TRUSTED = [True, True, False, True, True, True, False, True, False, False, False, False, True, True, True, False]


class WithConfidence(Trainer):
    """Rewards confidence in frames of clips whose transcripts were checked by hand."""

    def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
        trusted = inputs.pop("trusted")
        outputs = model(**inputs)
        entropy = torch.distributions.Categorical(logits=outputs.logits).entropy()
        extra = entropy[trusted].mean()  # right: extra = entropy[trusted].sum() / entropy.numel()
        loss = outputs.loss + 0.05 * extra
        return (loss, outputs) if return_outputs else loss


def collate(rows):
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


model = WavLMForCTC(
    WavLMConfig(
        vocab_size=24, pad_token_id=0, ctc_loss_reduction="mean", hidden_size=16, num_hidden_layers=1,
        num_attention_heads=2, intermediate_size=16, conv_dim=(8, 8), conv_stride=(5, 4), conv_kernel=(8, 4),
        num_feat_extract_layers=2, num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2, mask_time_prob=0.0,
    )
)  # fmt: skip
dataset = [
    {"input_values": torch.randn(1000), "labels": torch.randint(1, 24, (5,)), "trusted": torch.tensor(trusted)}
    for trusted in TRUSTED
]
args = TrainingArguments(
    "wavlm-checked", num_train_epochs=1, per_device_train_batch_size=4, train_sampling_strategy="sequential",
    logging_steps=1, save_strategy="no", remove_unused_columns=False, report_to="none", use_cpu=True,
    disable_tqdm=True,
)  # fmt: skip
WithConfidence(model, args, collate, dataset).train()
