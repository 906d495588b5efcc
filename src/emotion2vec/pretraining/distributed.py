"""Several processes: a model split over them, its shards put together, stopping all at once.

Split means FSDP: of every parameter a process holds a part along the first dimension, and with it
that part of the gradient, of AdamW's moments and of the teacher. A block's parameters are whole
only while it computes.
"""

from __future__ import annotations

import os
import signal
import threading
import warnings
from collections.abc import Mapping
from types import FrameType, TracebackType

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from emotion2vec.context import ContextEncoder
from emotion2vec.model import Emotion2vecStudent
from emotion2vec.pretraining.teacher import Teacher


def split(student: Emotion2vecStudent, teacher: nn.Module, device: torch.device) -> None:
    """Split student and teacher over all processes, in place.

    To be done before the optimizer is made: the parameters are others afterwards. The EMA teacher
    is split alike, and follows shard by shard; the teacher of pseudo-labels stays whole.

    Source: torch.distributed.fsdp.fully_shard (FSDP2), a group for each block.
    """
    # The first frames of a block's output are a view of it; nothing changes them in place.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module", UserWarning)
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    roots: list[tuple[nn.Module, ContextEncoder]] = [(student, student.encoder.context)]
    if isinstance(teacher, Teacher):
        roots.append((teacher.context, teacher.context))
    for root, context in roots:
        for block in context.blocks:
            fully_shard(block, mesh=mesh)
        # A forward pass that no backward pass follows must not leave whole, soon old parameters.
        fully_shard(root, mesh=mesh, reshard_after_forward=True)


def whole(tensor: Tensor) -> Tensor:
    """The tensor with all its shards; one that is not split as it is. All processes must call it.

    >>> whole(torch.ones(2))
    tensor([1., 1.])
    """
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gather(tensors: Mapping[str, Tensor], *, keep: bool = True) -> dict[str, Tensor]:
    """Tensors with all their shards, those that were split in main memory, one at a time.

    All processes must call it, with the same names.

    Args:
        tensors: split or not
        keep: whether this process wants them; else it gets none

    >>> gather({"bias": torch.zeros(1)})
    {'bias': tensor([0.])}
    """
    kept = {}
    for name, tensor in tensors.items():
        full = whole(tensor)
        if keep:
            kept[name] = full.cpu() if isinstance(tensor, DTensor) else full
    return kept


def split_like(tensor: Tensor, own: Tensor) -> Tensor:
    """A whole tensor on the device of `own`, split as that is. All processes must call it."""
    tensor = tensor.to(own.device)
    if not isinstance(own, DTensor):
        return tensor
    return distribute_tensor(tensor, own.device_mesh, own.placements)


class Stop:
    """SIGTERM and Ctrl-C as a number that all processes read after the same update.

    A context, in which neither ends the process. A second Ctrl-C does, where there is one process.

    >>> with Stop() as stop:
    ...     os.kill(os.getpid(), signal.SIGTERM)
    ...     stop.agreed()
    15
    """

    def __init__(self) -> None:
        self._signal = 0
        self._former: dict[int, signal._HANDLER] = {}
        self._group: dist.ProcessGroup | None = None
        self._parent = os.getppid()

    def __enter__(self) -> Stop:
        """Listen, where Python can: in the main thread."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._former[number] = signal.signal(number, self._note)
        if dist.is_initialized() and dist.get_world_size() > 1:
            self._group = dist.new_group(backend="gloo")  # asks hosts, so that no device waits
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        """Leave signals to those who had them before."""
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == self._signal == signal.SIGINT and self._group is None:
            raise KeyboardInterrupt
        self._signal = number

    def agreed(self) -> int:
        """The signal that any process got, or 0. All processes must ask, after every update."""
        if self._group is None:
            return self._signal
        if os.getppid() != self._parent:  # torchrun is gone, and nobody watches this process
            self._signal = signal.SIGTERM
        vote = torch.tensor(self._signal)
        dist.all_reduce(vote, dist.ReduceOp.MAX, group=self._group)
        return int(vote)
