"""A program that knows nothing of ctcguard: FSDP2, and a bad batch in the last rank."""

import torch
import torch.distributed as dist
from recogniser import fsdp2, train

torch.set_num_threads(1)
dist.init_process_group("gloo")
last = dist.get_world_size() - 1
train(fsdp2, 8, lambda rank, step: rank == last and step == 3)
print("this is not reached")
