"""The head was given tokenizer.vocab_size classes, which leaves out the tokens that were added for noises.

report: https://github.com/huggingface/transformers/issues/15392
record: tokenizer-larger-than-logits-decoder
expects: CTC101 missing-classes before training
"""

import json

import torch
from transformers import (
    SeamlessM4TFeatureExtractor,
    Trainer,
    TrainingArguments,
    Wav2Vec2BertConfig,
    Wav2Vec2BertForCTC,
    Wav2Vec2BertProcessor,
    Wav2Vec2CTCTokenizer,
)

train_split = [
    "one two", "three four five", "six", "seven eight", "nine ten", "two six", "five five", "ten one", "eight",
    "four three", "seven", "nine nine one",
]  # fmt: skip
letters = sorted({letter for line in train_split for letter in line if letter != " "})
with open("vocab.json", "w") as vocab_file:
    json.dump({token: i for i, token in enumerate(["[PAD]", "[UNK]", "|", *letters])}, vocab_file)

tokenizer = Wav2Vec2CTCTokenizer("vocab.json", unk_token="[UNK]", pad_token="[PAD]", word_delimiter_token="|")
tokenizer.add_tokens(["<laugh>", "<cough>"])  # the second part of the recordings has them
extractor = SeamlessM4TFeatureExtractor(feature_size=16, num_mel_bins=16, stride=2)
processor = Wav2Vec2BertProcessor(feature_extractor=extractor, tokenizer=tokenizer)

model = Wav2Vec2BertForCTC(
    Wav2Vec2BertConfig(
        vocab_size=tokenizer.vocab_size,  # right: vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        ctc_loss_reduction="mean",
        feature_projection_input_dim=32,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        conv_depthwise_kernel_size=3,
        mask_time_prob=0.0,
        layerdrop=0.0,
    )
)


def collate(lines):
    lengths = [8_000 + 640 * len(line) for line in lines]
    audio = [torch.randn(length).numpy() for length in lengths]
    batch = processor(audio, sampling_rate=16_000, return_tensors="pt")
    text = tokenizer(lines, padding=True, return_tensors="pt")
    batch["labels"] = text.input_ids.masked_fill(text.attention_mask == 0, -100)
    return batch


trainer = Trainer(
    model=model,
    args=TrainingArguments(
        "w2v-bert-digits", per_device_train_batch_size=4, num_train_epochs=1, logging_steps=1, report_to="none",
        save_strategy="no", remove_unused_columns=False, use_cpu=True, disable_tqdm=True,
    ),
    train_dataset=train_split,
    data_collator=collate,
    processing_class=processor,
)  # fmt: skip
trainer.train()
