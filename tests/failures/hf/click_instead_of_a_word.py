"""A cut of a few samples: the convolutions leave no frame of it, and its word has nothing to align to.

report: https://github.com/k2-fsa/icefall/issues/135
record: icefall-inf-too-short
expects: CTC302 below-one at step 1
"""

import torch
from transformers import Trainer, TrainerCallback, TrainingArguments, Wav2Vec2Config, Wav2Vec2ForCTC

g = torch.Generator().manual_seed(2)
config = Wav2Vec2Config(
    vocab_size=12, pad_token_id=0, ctc_loss_reduction="sum", feat_extract_norm="layer", do_stable_layer_norm=True,
    hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, conv_dim=(8, 8, 8),
    conv_kernel=(10, 4, 4), conv_stride=(5, 2, 2), num_feat_extract_layers=3, num_conv_pos_embeddings=4,
    num_conv_pos_embedding_groups=2, mask_time_prob=0.0,
)  # fmt: skip

cuts = {f"cut-{n:02d}": 700 + 40 * n for n in range(12)}
cuts["cut-05"] = 37  # the supervision ends where it starts
# right: del cuts["cut-05"]


class Cuts(torch.utils.data.Dataset):
    def __init__(self, durations):
        self.durations = list(durations.values())

    def __len__(self):
        return len(self.durations)

    def __getitem__(self, index):
        wave = torch.randn(self.durations[index], generator=g)
        return wave, torch.randint(1, 12, (5,), generator=g)


def collate(cuts):
    waves, words = zip(*cuts)
    batch = torch.nn.utils.rnn.pad_sequence(waves, batch_first=True)
    mask = torch.zeros(batch.shape, dtype=torch.int64)
    for row, wave in zip(mask, waves):
        row[: len(wave)] = 1
    return {"input_values": batch, "attention_mask": mask, "labels": torch.stack(words)}


class PrintLoss(TrainerCallback):
    def on_log(self, args, state, control, logs=None, **kwargs):
        print(state.global_step, logs.get("loss"))


trainer = Trainer(
    Wav2Vec2ForCTC(config),
    TrainingArguments(
        "cuts", max_steps=3, per_device_train_batch_size=4, train_sampling_strategy="sequential", logging_steps=1,
        save_strategy="no", report_to="none", use_cpu=True, disable_tqdm=True,
    ),
    train_dataset=Cuts(cuts),
    data_collator=collate,
    callbacks=[PrintLoss()],
)  # fmt: skip
trainer.train()
