"""Symbols of two letters in the vocabulary: the tokenizer drops the spaces beside them, and words run together.

report: https://github.com/huggingface/transformers/issues/10942
record: multi-character-tokens
expects: CTC106 spaces-lost before training
"""

import json

import torch
from transformers import Trainer, TrainingArguments, Wav2Vec2CTCTokenizer, WavLMConfig, WavLMForCTC, set_seed

set_seed(3)
frases = [
    "los chicos y la calle", "ocho coches llenos", "ella llega en coche", "mucha lluvia hoy", "el chico llora",
    "la noche llega ya", "una chica en la calle", "leche y churros",
]  # fmt: skip
simbolos = ["<pad>", "<unk>", "|", *"abcdefghijklmnopqrstuvwxyzñ"]
simbolos += ["ch", "ll"]  # right:
with open("vocab.json", "w", encoding="utf-8") as archivo:
    json.dump({simbolo: i for i, simbolo in enumerate(simbolos)}, archivo)
tokenizer = Wav2Vec2CTCTokenizer("vocab.json", bos_token=None, eos_token=None)

datos = [
    {"sentence": frase, "input_values": torch.randn(1400), "labels": tokenizer(frase).input_ids} for frase in frases * 2
]


def juntar(filas):
    ancho = max(len(fila["labels"]) for fila in filas)
    return {
        "input_values": torch.stack([fila["input_values"] for fila in filas]),
        "labels": torch.tensor([fila["labels"] + [-100] * (ancho - len(fila["labels"])) for fila in filas]),
    }


modelo = WavLMForCTC(
    WavLMConfig(
        vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, ctc_loss_reduction="mean", hidden_size=16,
        num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, conv_dim=(8, 8), conv_stride=(5, 4),
        conv_kernel=(8, 4), num_feat_extract_layers=2, num_conv_pos_embeddings=4, mask_time_prob=0.0,
        num_conv_pos_embedding_groups=2,
    )
)  # fmt: skip
argumentos = TrainingArguments(
    "salida", max_steps=3, per_device_train_batch_size=4, logging_steps=1, save_strategy="no", report_to="none",
    use_cpu=True, disable_tqdm=True,
)  # fmt: skip
Trainer(modelo, argumentos, juntar, datos, processing_class=tokenizer).train()
