# ruff: noqa: ANN401 (torch hands over whatever an operator takes)
"""A fake GPU: torch's ``meta`` device with numbers behind it, so that a mix of devices fails here as it would there.

It shows only that every tensor is where it should be; what a real GPU does with them it cannot show.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("meta")
INDEXES = ("index", "index_put", "_index_put_impl", "_unsafe_index")
"""Real GPUs, too, take the places of an index from the CPU."""


class OnGpu(Tensor):
    """A tensor that says it lies on ``DEVICE``."""

    inner: Tensor

    @staticmethod
    def __new__(cls: type[Self], inner: Tensor) -> Self:
        return Tensor._make_wrapper_subclass(
            cls, inner.shape, dtype=inner.dtype, device=DEVICE, strides=inner.stride(), requires_grad=False
        )

    def __init__(self, inner: Tensor) -> None:
        self.inner = inner

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(function, args, kwargs or {})


class FakeGpu(TorchDispatchMode):
    """While it is on, what is made on ``DEVICE`` has numbers."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(function, args, kwargs or {})


def run(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Run an operator on the CPU, and give the result the device that it would have."""
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    on_gpu = any(isinstance(one, OnGpu) for one in tensors)
    target = kwargs.get("device")
    if on_gpu and target is None and not function._schema.name.removeprefix("aten::").rstrip("_").startswith(INDEXES):
        check_alike(function, tensors)
    if target is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    inner = tree_map(lambda leaf: leaf.inner if isinstance(leaf, OnGpu) else leaf, (args, kwargs))
    result = function(*inner[0], **inner[1])
    if function._schema.is_mutable and args and isinstance(args[0], Tensor) and function._schema.name.endswith("_"):
        return args[0]
    stays = torch.device(target) == DEVICE if target is not None else on_gpu
    return tree_map(lambda leaf: OnGpu(leaf) if stays and isinstance(leaf, Tensor) else leaf, result)


def check_alike(function: Any, tensors: Iterable[Tensor]) -> None:
    """Raise when a tensor with more than one number lies elsewhere."""
    strays = [tuple(one.shape) for one in tensors if not isinstance(one, OnGpu) and one.ndim]
    if strays:
        raise RuntimeError(f"{function}: all tensors must be on one device, found CPU tensors of shape {strays}")
