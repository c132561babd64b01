"""Characters looked up one by one: the vocabulary has "|" between words, so that every space is <unk>.

report: https://github.com/facebookresearch/fairseq/issues/2964
record: word-delimiter-missing
expects: CTC105 missing-delimiter at step 0
"""

import json

import torch
from transformers import HubertConfig, HubertForCTC, Trainer, TrainingArguments, Wav2Vec2CTCTokenizer

torch.manual_seed(6)
dict_ltr = "<pad> <unk> | E T A O I N S H R D L U C M W F G Y P B V K X J Q Z".split()
with open("dict.json", "w") as f:
    json.dump({letter: i for i, letter in enumerate(dict_ltr)}, f)
tokenizer = Wav2Vec2CTCTokenizer("dict.json", bos_token=None, eos_token=None)

transcripts = """A MAN SAID TO THE UNIVERSE
SIR I EXIST
HOWEVER HE SAID NO
IT IS AS IT IS
THE FACT HAS NOT
CREATED IN ME A SENSE
OF MY OWN DUTY
I AM AT A LOSS
""".splitlines()


def encode(text):
    return tokenizer.convert_tokens_to_ids(list(text))  # right: return tokenizer(text).input_ids


pairs = [(torch.randn(1200 + 10 * len(text)), torch.tensor(encode(text))) for text in transcripts * 2]


def collate(pairs):
    waves, labels = ([pair[i] for pair in pairs] for i in (0, 1))
    pad = torch.nn.utils.rnn.pad_sequence
    mask = pad([torch.ones(len(wave), dtype=torch.long) for wave in waves], batch_first=True)
    return {"input_values": pad(waves, True), "attention_mask": mask, "labels": pad(labels, True, -100)}


model = HubertForCTC(
    HubertConfig(
        vocab_size=len(dict_ltr), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        feat_extract_norm="layer", conv_dim=(8, 8), conv_kernel=(10, 4), conv_stride=(5, 4), mask_time_prob=0.0,
        num_feat_extract_layers=2, num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2, pad_token_id=0,
    )
)  # fmt: skip
args = TrainingArguments(
    output_dir="hubert-ltr", max_steps=2, per_device_train_batch_size=16, save_strategy="no", logging_steps=1,
    report_to="none", use_cpu=True, disable_tqdm=True,
)  # fmt: skip
Trainer(model=model, args=args, train_dataset=pairs, data_collator=collate, processing_class=tokenizer).train()
