"""The sample of the documentation, with C read as 'classes excluding blank': class C does not exist.

report: https://github.com/pytorch/pytorch/issues/20522
report: https://github.com/Holmeyoung/crnn-pytorch/issues/14
record: docs-example-off-by-one
expects: CTC201 no-class-for-blank at step 0
"""

import torch
import torch.nn as nn

torch.manual_seed(20522)
T = 50  # input sequence length
C = 20  # number of classes (excluding blank)
N = 16  # batch size
S = 30  # target sequence length of longest target in batch
S_min = 10  # minimum target length

model = nn.Linear(32, C)  # right: model = nn.Linear(32, C + 1)
ctc_loss = nn.CTCLoss()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
target = torch.randint(low=1, high=C + 1, size=(N, S), dtype=torch.long)
target[-1].clamp_(max=C - 1)
input_lengths = torch.full(size=(N,), fill_value=T, dtype=torch.long)
target_lengths = torch.randint(low=S_min, high=S, size=(N,), dtype=torch.long)
for _ in range(3):
    input = model(torch.randn(T, N, 32)).log_softmax(2)
    loss = ctc_loss(input, target, input_lengths, target_lengths)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(loss.item())
