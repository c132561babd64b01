"""output_neurons of the recipe is 31, the tokenizer has 58 pieces: NaN 'after a couple of batches'.

report: https://github.com/speechbrain/speechbrain/issues/1589
record: label-out-of-range-speechbrain-nan
expects: CTC201 label-beyond-head at step 0
"""

import torch

hparams = {
    "output_neurons": 31,  # right: "output_neurons": 58,
    "n_mels": 40,
    "dnn_neurons": 64,
    "blank_index": 0,
    "lr": 1e-3,
}


class Brain:
    def __init__(self, modules, opt_class, hparams):
        self.modules, self.hparams = torch.nn.ModuleDict(modules), hparams
        self.optimizer = opt_class(self.modules.parameters())
        self.step = 0

    def compute_forward(self, batch):
        feats, wav_lens = batch["sig"]
        x, _ = self.modules["enc"](feats)
        logits = self.modules["output_lin"](x)
        return torch.log_softmax(logits, dim=-1), wav_lens

    def compute_objectives(self, predictions, batch):
        p_ctc, wav_lens = predictions
        tokens, tokens_lens = batch["tokens"]
        input_lens = (wav_lens * p_ctc.shape[1]).round().int()
        target_lens = (tokens_lens * tokens.shape[1]).round().int()
        return torch.nn.functional.ctc_loss(
            p_ctc.transpose(0, 1), tokens, input_lens, target_lens, self.hparams["blank_index"], zero_infinity=True
        )

    def fit(self, train_set):
        for batch in train_set:
            loss = self.compute_objectives(self.compute_forward(batch), batch)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.modules.parameters(), 5.0)
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.step += 1
            print(f"train loss: {loss.item():.2f}")


def dataset(batches=3):
    """Utterances sorted by their length; the short ones are made of frequent pieces, which have small ids."""
    for _ in range(batches):
        frames, pieces = torch.tensor([60, 54, 45, 30]), torch.tensor([12, 10, 8, 5])
        tokens = torch.zeros(4, 12, dtype=torch.long)
        for i, (count, largest) in enumerate(zip(pieces, [58, 58, 44, 30])):
            tokens[i, :count] = torch.randint(1, largest, (int(count),))
        tokens[0, :3] = torch.tensor([57, 31, 8])
        yield {"sig": (torch.randn(4, 60, hparams["n_mels"]), frames / 60), "tokens": (tokens, pieces / 12)}


modules = {
    "enc": torch.nn.LSTM(hparams["n_mels"], hparams["dnn_neurons"], batch_first=True),
    "output_lin": torch.nn.Linear(hparams["dnn_neurons"], hparams["output_neurons"]),
}
Brain(modules, lambda params: torch.optim.Adam(params, hparams["lr"]), hparams).fit(dataset())
