"""The padding of the tokenizer has the last id, the model was not told: the loss drops every letter "a".

report: https://github.com/huggingface/transformers/issues/18612
record: hf-pad-id-not-blank-id
expects: CTC205 blank-is-a-letter at step 0
"""

import json
from dataclasses import dataclass

import numpy as np
from transformers import (
    Trainer,
    TrainingArguments,
    Wav2Vec2Config,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    Wav2Vec2Processor,
)

sentences = ["a red cat", "the old bear", "read a card", "an eel ate", "bad bread", "see the dart"] * 2
vocab_list = sorted(set("".join(sentences)) - {" "})
vocab_dict = {letter: number for number, letter in enumerate(vocab_list)}
vocab_dict["|"] = len(vocab_dict)
vocab_dict["[UNK]"] = len(vocab_dict)
vocab_dict["[PAD]"] = len(vocab_dict)
with open("vocab.json", "w") as vocab_file:
    json.dump(vocab_dict, vocab_file)

tokenizer = Wav2Vec2CTCTokenizer("vocab.json", unk_token="[UNK]", pad_token="[PAD]", word_delimiter_token="|")
feature_extractor = Wav2Vec2FeatureExtractor(return_attention_mask=True)
processor = Wav2Vec2Processor(feature_extractor=feature_extractor, tokenizer=tokenizer)

rng = np.random.default_rng(0)


def prepare(sentence):
    speech = rng.standard_normal(rng.integers(900, 1300)).astype(np.float32)
    return {
        "input_values": processor(speech, sampling_rate=16_000).input_values[0],
        "labels": processor.tokenizer(sentence).input_ids,
    }


@dataclass
class DataCollatorCTCWithPadding:
    processor: Wav2Vec2Processor

    def __call__(self, features):
        inputs = [{"input_values": feature["input_values"]} for feature in features]
        labels = [{"input_ids": feature["labels"]} for feature in features]
        batch = self.processor.feature_extractor.pad(inputs, padding=True, return_tensors="pt")
        labels = self.processor.tokenizer.pad(labels, padding=True, return_tensors="pt")
        batch["labels"] = labels["input_ids"].masked_fill(labels.attention_mask.ne(1), -100)
        return batch


model = Wav2Vec2ForCTC(
    Wav2Vec2Config(
        vocab_size=len(processor.tokenizer),
        # right: pad_token_id=processor.tokenizer.pad_token_id,
        ctc_loss_reduction="mean",
        hidden_size=24,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        conv_dim=(16, 16),
        conv_kernel=(10, 8),
        conv_stride=(5, 4),
        num_feat_extract_layers=2,
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2,
        mask_time_prob=0.0,
    )
)
model.freeze_feature_encoder()

trainer = Trainer(
    model=model,
    args=TrainingArguments(
        output_dir="wav2vec2-base-demo",
        per_device_train_batch_size=4,
        max_steps=3,
        learning_rate=1e-4,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    ),
    train_dataset=[prepare(sentence) for sentence in sentences],
    data_collator=DataCollatorCTCWithPadding(processor),
    processing_class=processor.feature_extractor,
)
trainer.train()
