"""A temperature between log_softmax and the loss: no distribution any more, and a gradient that is silently wrong.

report: https://github.com/pytorch/pytorch/issues/52241
record: ctc-grad-needs-log-softmax-in-graph
expects: CTC402 altered-after-softmax at step 0
"""

from dataclasses import dataclass

import torch
from torch import nn
from transformers import SEWConfig, SEWModel, Trainer, TrainingArguments
from transformers.modeling_outputs import CausalLMOutput


@dataclass
class Settings:
    classes: int = 40
    temperature: float = 1.3
    batch: int = 5


class DistilledRecogniser(nn.Module):
    """An encoder of transformers below a head and a loss of our own."""

    def __init__(self, encoder, settings):
        super().__init__()
        self.encoder = encoder
        self.head = nn.Sequential(nn.LayerNorm(encoder.config.hidden_size), nn.Linear(16, settings.classes))
        self.criterion = nn.CTCLoss(blank=settings.classes - 1, reduction="mean")
        self.heat = settings.temperature

    def forward(self, input_values, labels=None):
        logits = self.head(self.encoder(input_values).last_hidden_state)
        scores = logits.log_softmax(-1) / self.heat  # right: scores = (logits / self.heat).log_softmax(-1)
        frames = torch.full((len(scores),), scores.shape[1])
        counts = (labels != -100).sum(1)
        loss = self.criterion(scores.transpose(0, 1), labels.clamp(min=0), frames, counts)
        return CausalLMOutput(loss=loss, logits=logits)


s = Settings()
torch.manual_seed(4)
encoder = SEWModel(
    SEWConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, squeeze_factor=2,
        conv_dim=(8, 8), conv_kernel=(10, 4), conv_stride=(5, 4), num_feat_extract_layers=2,
        num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2, mask_time_prob=0.0, layerdrop=0.0,
    )
)  # fmt: skip
data = []
for _ in range(15):
    ids = torch.full((9,), -100)
    ids[: torch.randint(3, 10, ())] = 1
    data.append({"input_values": torch.randn(1600), "labels": torch.where(ids > 0, torch.randint(0, 39, (9,)), ids)})
trainer = Trainer(
    DistilledRecogniser(encoder, s),
    TrainingArguments(
        "distilled", num_train_epochs=1, per_device_train_batch_size=s.batch, save_strategy="no", logging_steps=1,
        report_to="none", use_cpu=True, disable_tqdm=True,
    ),
    train_dataset=data,
)  # fmt: skip
trainer.train()
