"""The space between words serves as the padding of the tokenizer, and so as the blank of the loss.

report: https://github.com/yl4579/AuxiliaryASR/issues/4
record: blank-in-targets-auxiliaryasr
expects: CTC102 ordinary-symbol before training
"""

import json
import string
from pathlib import Path

import torch
from transformers import SEWConfig, SEWForCTC, Trainer, TrainingArguments, Wav2Vec2CTCTokenizer

symbols = ["<pad>", "<unk>", "|", *string.ascii_uppercase, "'"]
Path("vocab.json").write_text(json.dumps({s: i for i, s in enumerate(symbols)}))
filler = "|"  # right: filler = "<pad>"
tokenizer = Wav2Vec2CTCTokenizer(
    "vocab.json", bos_token=None, eos_token=None, unk_token="<unk>", pad_token=filler, word_delimiter_token="|"
)

corpus = """SHE HAD YOUR DARK SUIT|DON'T ASK ME TO CARRY|ALL YEAR LONG|AN OILY RAG LIKE THAT
GREASY WASH WATER|THE BUNGALOW WAS PLEASANT|A LAWYER WAS APPOINTED|TO DISPOSE OF HIS WILL""".replace("\n", "|")


class Utterances(torch.utils.data.Dataset):
    def __init__(self, lines):
        self.labels = [tokenizer(line)["input_ids"] for line in lines]
        self.audio = [torch.randn(30 * 40 + 40 * len(ids)) for ids in self.labels]

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return self.audio[index], self.labels[index]


def batched(items):
    width = max(len(audio) for audio, _ in items)
    most = max(len(ids) for _, ids in items)
    audio = torch.stack([torch.nn.functional.pad(audio, (0, width - len(audio))) for audio, _ in items])
    mask = torch.stack([torch.arange(width) < len(audio) for audio, _ in items])
    labels = torch.tensor([ids + [-100] * (most - len(ids)) for _, ids in items])
    return {"input_values": audio, "attention_mask": mask.long(), "labels": labels}


model = SEWForCTC(
    SEWConfig(
        vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, ctc_loss_reduction="sum", hidden_size=16,
        intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, squeeze_factor=2, conv_dim=(8, 8),
        conv_kernel=(10, 4), conv_stride=(5, 4), num_feat_extract_layers=2, num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2, mask_time_prob=0.0, layerdrop=0.0,
    )
)  # fmt: skip
args = TrainingArguments(
    output_dir="sew", num_train_epochs=1, per_device_train_batch_size=4, warmup_steps=2, logging_steps=1,
    save_strategy="no", report_to="none", use_cpu=True, disable_tqdm=True,
)  # fmt: skip
Trainer(model, args, batched, Utterances(corpus.split("|")), processing_class=tokenizer).train()
