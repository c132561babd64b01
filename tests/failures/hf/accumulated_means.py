"""Gradients of four micro-batches, each with a mean of its own, are added up and never divided: four times the step.

report: https://github.com/huggingface/transformers/issues/37766
record: gradient-accumulation-scale
expects: CTC506 mean-reduction at step 0
"""

import torch
from transformers import Trainer, TrainingArguments, Wav2Vec2Config, Wav2Vec2ForCTC, default_data_collator

torch.manual_seed(19)
model = Wav2Vec2ForCTC(
    Wav2Vec2Config(
        vocab_size=32, pad_token_id=0, ctc_loss_reduction="mean", hidden_size=16, intermediate_size=16,
        num_hidden_layers=1, num_attention_heads=2, conv_dim=(8, 8), conv_kernel=(10, 4), conv_stride=(5, 4),
        num_feat_extract_layers=2, num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2, mask_time_prob=0.0,
    )
)  # fmt: skip
training_args = TrainingArguments(
    output_dir="small-gpu",
    per_device_train_batch_size=2,
    gradient_accumulation_steps=4,
    max_steps=3,
    learning_rate=1e-4,
    logging_steps=1,
    save_strategy="no",
    report_to="none",
    use_cpu=True,
    disable_tqdm=True,
)
train_dataset = [{"input_values": torch.randn(1200), "labels": torch.randint(3, 32, (7,))} for _ in range(24)]
trainer = Trainer(model, training_args, default_data_collator, train_dataset)
# right: trainer.model_accepts_loss_kwargs = False  # then the trainer divides
trainer.train()
