"""A smaller vocabulary for Parakeet: the blank comes after its last piece, and the head has no class for it.

report: https://github.com/NVIDIA-NeMo/Speech/issues/5738
record: nemo-blank-last-plus1
expects: CTC103 no-class-for-blank before training
raises: RuntimeError
"""

import torch
from transformers import ParakeetCTCConfig, ParakeetEncoderConfig, ParakeetForCTC, Trainer, TrainingArguments

torch.manual_seed(1)
pieces = ["\N{LOWER ONE EIGHTH BLOCK}the", "\N{LOWER ONE EIGHTH BLOCK}", *"abcdefghijklmnopqrstuvwxyz", "ing", "er"]
encoder = ParakeetEncoderConfig(
    hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, num_mel_bins=16,
    subsampling_conv_channels=4, subsampling_factor=4, conv_kernel_size=5, layerdrop=0.0,
)  # fmt: skip
config = ParakeetCTCConfig(
    vocab_size=len(pieces),  # right: vocab_size=len(pieces) + 1,
    pad_token_id=len(pieces),
    encoder_config=encoder.to_dict(),
)
model = ParakeetForCTC(config)
train_set = [
    {"input_features": torch.randn(120, 16), "attention_mask": torch.ones(120, dtype=torch.long), "labels": ids}
    for ids in torch.randint(0, len(pieces), (12, 7))
]
trainer = Trainer(
    model=model,
    args=TrainingArguments(
        "parakeet", max_steps=3, per_device_train_batch_size=4, learning_rate=1e-4, logging_steps=1, report_to="none",
        save_strategy="no", use_cpu=True, disable_tqdm=True,
    ),
    train_dataset=train_set,
)  # fmt: skip
trainer.train()
