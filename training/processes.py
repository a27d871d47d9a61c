"""The processes that train together: one, or those that torchrun started (gloo on CPUs, nccl on GPUs)."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True)
class Processes:
    """`rank` of `count`; the first one, rank 0, writes files and shows progress."""

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def share(self, indices: Tensor) -> Tensor:
        """This process's part of indices that every process has in the same order."""
        return indices[self.rank :: self.count]

    def mean(self, tensor: Tensor) -> Tensor:
        """The mean of the processes' tensors, on all of them."""
        return self.sum(tensor) / self.count

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum of the processes' tensors, on all of them."""
        if self.count > 1:
            tensor = tensor.clone()
            dist.all_reduce(tensor)
        return tensor

    def copy_from_first(self, module: nn.Module) -> None:
        """Give every process the first one's buffers (batch-norm statistics)."""
        if self.count > 1:
            for buffer in module.buffers():
                dist.broadcast(buffer, src=0)

    def wait(self) -> None:
        """Until every process is here."""
        if self.count > 1:
            dist.barrier()

    def parallel(self, module: nn.Module, has_unused: bool = False) -> nn.Module:
        """The module with gradients averaged over the processes; `has_unused` where some parameter gets none."""
        if self.count == 1:
            return module
        return DistributedDataParallel(module, find_unused_parameters=has_unused)


ALONE = Processes()


@contextmanager
def joined() -> Iterator[Processes]:
    """The processes that torchrun started together, joined until the end of the context; else this one alone."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        yield ALONE
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield Processes(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()
