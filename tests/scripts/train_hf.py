"""A Hugging Face Trainer whose model has fewer classes than its tokenizer has symbols."""

import json
import sys
from pathlib import Path

import torch
import transformers
from transformers import TrainingArguments, Wav2Vec2Config, Wav2Vec2CTCTokenizer, Wav2Vec2ForCTC

print("trainer imported:", "transformers.trainer" in sys.modules)
folder = Path(sys.argv[1])
symbols = ["<pad>", "<unk>", "|", *"abcdefghijklm"]
(folder / "vocab.json").write_text(json.dumps({symbol: index for index, symbol in enumerate(symbols)}))
tokenizer = Wav2Vec2CTCTokenizer(folder / "vocab.json", pad_token="<pad>", bos_token=None, eos_token=None)
config = Wav2Vec2Config(
    vocab_size=10, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, pad_token_id=0,
    conv_dim=(8, 8), conv_kernel=(10, 8), conv_stride=(5, 4), num_feat_extract_layers=2, mask_time_prob=0.0,
    num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2, ctc_loss_reduction="mean",
)  # fmt: skip
clips = [{"input_values": torch.randn(800), "labels": torch.tensor([3, 4, 5, 9])} for _ in range(4)]
trainer = transformers.Trainer(
    model=Wav2Vec2ForCTC(config),
    args=TrainingArguments(folder / "out", max_steps=2, report_to="none", use_cpu=True, disable_tqdm=True),
    train_dataset=clips,
    processing_class=tokenizer,
    data_collator=lambda items: {name: torch.stack([item[name] for item in items]) for name in items[0]},
)
print("training")
trainer.train()
print("trained")
