"""Labels filled up to one width with a symbol of the vocabulary: the tail is trained as if it had been said.

report: https://github.com/huggingface/transformers/pull/10145
record: padding-counted-as-target
expects: CTC207 buffer-length at step 0
"""

import numpy as np
import torch
from transformers import SEWConfig, SEWForCTC, Trainer, TrainingArguments

PHONES = ["<pad>", "sil", "p", "b", "t", "d", "k", "g", "f", "v", "s", "z", "m", "n", "l", "r", "a", "e", "i", "o", "u"]
rng = np.random.default_rng(30)
lexicon = {
    "bade": "b a d e",
    "sole": "s o l e",
    "kit": "k i t",
    "motor": "m o t o r",
    "gas": "g a s",
    "vino": "v i n o",
}
recordings = [rng.choice(list(lexicon), rng.integers(1, 4)) for _ in range(20)]
WIDTH = 24  # no utterance is longer


def phones(words):
    return [PHONES.index(phone) for word in words for phone in lexicon[word].split()]


def collate(batch):
    targets = [phones(words) for words in batch]
    filler = PHONES.index("sil")  # right: filler = -100
    labels = [ids + [filler] * (WIDTH - len(ids)) for ids in targets]
    return {"input_values": torch.randn(len(batch), 2000), "labels": torch.tensor(labels)}


model = SEWForCTC(
    SEWConfig(
        vocab_size=len(PHONES), pad_token_id=0, ctc_loss_reduction="mean", hidden_size=16, intermediate_size=16,
        num_hidden_layers=1, num_attention_heads=2, squeeze_factor=2, conv_dim=(8, 8), conv_kernel=(10, 4),
        conv_stride=(5, 4), num_feat_extract_layers=2, num_conv_pos_embeddings=4, mask_time_prob=0.0,
        num_conv_pos_embedding_groups=2, layerdrop=0.0,
    )
)  # fmt: skip
args = TrainingArguments(
    "sew-phones", max_steps=5, per_device_train_batch_size=4, logging_steps=1, save_strategy="no", report_to="none",
    remove_unused_columns=False, use_cpu=True, disable_tqdm=True,
)  # fmt: skip
Trainer(model, args, collate, recordings).train()
