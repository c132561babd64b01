"""A clip of digital silence, divided by its standard deviation of 0, is NaN before the model sees it.

report: https://github.com/SeanNaren/deepspeech.pytorch/issues/272
record: silent-audio-nan
expects: CTC403 non-finite-features at step 1
"""

import json

import torch
from transformers import Trainer, TrainingArguments, Wav2Vec2Config, Wav2Vec2CTCTokenizer, Wav2Vec2ForCTC

torch.manual_seed(0)
commands = ["yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go"]
with open("vocab.json", "w") as handle:
    json.dump({c: i for i, c in enumerate(["<pad>", "<unk>", "|", *sorted(set("".join(commands)))])}, handle)
tokenizer = Wav2Vec2CTCTokenizer("vocab.json", bos_token=None, eos_token=None)


def load(index):
    wave = 0.1 * torch.randn(1000)
    if index == 6:  # the microphone was off
        wave = torch.zeros(1000)
    return wave


def normalise(wave):
    return (wave - wave.mean()) / wave.std()  # right: return (wave - wave.mean()) / (wave.std() + 1e-5)


train = [{"input_values": normalise(load(i)), "text": commands[i % 10]} for i in range(16)]


def data_collator(rows):
    text = tokenizer([row["text"] for row in rows], padding=True, return_tensors="pt")
    return {
        "input_values": torch.stack([row["input_values"] for row in rows]),
        "labels": text.input_ids.masked_fill(text.input_ids == tokenizer.pad_token_id, -100),
    }


model = Wav2Vec2ForCTC(
    Wav2Vec2Config(
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        ctc_loss_reduction="mean",
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        conv_dim=(8, 8),
        conv_kernel=(10, 8),
        conv_stride=(5, 4),
        num_feat_extract_layers=2,
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
        mask_time_prob=0.0,
    )
)
trainer = Trainer(
    model=model,
    data_collator=data_collator,
    args=TrainingArguments(
        output_dir="commands",
        per_device_train_batch_size=4,
        num_train_epochs=1,
        train_sampling_strategy="sequential",
        remove_unused_columns=False,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
    ),
    train_dataset=train,
    processing_class=tokenizer,
)
trainer.train()
