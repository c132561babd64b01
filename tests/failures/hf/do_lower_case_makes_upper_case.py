"""do_lower_case=True makes letters upper-case before they are looked up: with a lower-case vocabulary all are [UNK].

report: https://github.com/sanchit-gandhi/seq2seq-speech/issues/23
record: do-lower-case-uppercases
expects: CTC106 letter-case before training
"""

import json

import torch
from transformers import (
    Trainer,
    TrainingArguments,
    Wav2Vec2BertConfig,
    Wav2Vec2BertForCTC,
    Wav2Vec2CTCTokenizer,
    set_seed,
)

set_seed(0)
raw = ["Mr. Quilter is here", "Nor is he late", "He tells us", "Roast beef", "We read on", "Painted slowly"] * 3
chars = sorted(set("".join(raw).lower()) - {" ", "."})
with open("vocab.json", "w") as f:
    json.dump({c: i for i, c in enumerate(["[PAD]", "[UNK]", "|", *chars])}, f)

tokenizer = Wav2Vec2CTCTokenizer(
    "vocab.json",
    unk_token="[UNK]",
    pad_token="[PAD]",
    do_lower_case=True,  # right: do_lower_case=False,
)
model = Wav2Vec2BertForCTC(
    Wav2Vec2BertConfig(
        vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, feature_projection_input_dim=12,
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, layerdrop=0.0,
        conv_depthwise_kernel_size=3, mask_time_prob=0.0, ctc_loss_reduction="mean",
    )
)  # fmt: skip


class LibriSpeech(torch.utils.data.Dataset):
    def __len__(self):
        return len(raw)

    def __getitem__(self, index):
        text = raw[index].lower().replace(".", "")
        return {"input_features": torch.randn(50, 12), "labels": tokenizer(text).input_ids}


def collate(items):
    labels = [torch.tensor(item["labels"]) for item in items]
    return {
        "input_features": torch.stack([item["input_features"] for item in items]),
        "labels": torch.nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=-100),
    }


args = TrainingArguments(
    output_dir="librispeech", max_steps=3, per_device_train_batch_size=6, save_strategy="no", logging_steps=1,
    report_to="none", use_cpu=True, disable_tqdm=True,
)  # fmt: skip
Trainer(model, args, collate, LibriSpeech(), processing_class=tokenizer).train()
