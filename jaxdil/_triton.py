"""What JAX asks of a program in which one of our kernels for a GPU may stand, answered for callers.

The kernels are lowered to Triton by Pallas. Callers chose none of that and can do nothing about it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import jax
from jax.sharding import AbstractDevice, get_abstract_mesh, use_abstract_mesh

from jaxdil._device import devices_here

__all__ = ["for_triton"]

_GPUS = {"cuda", "rocm"}


@contextmanager
def for_triton(platforms: Sequence[str]) -> Iterator[None]:
    """Kernels are lowered for these platforms without a warning, and without a GPU as well.

    JAX 0.11 warns of every kernel that its Pallas may lose Triton. To whom a warning is an error
    would be left without a program; once Triton is lost, `pallas_gpu` refuses.

    It also wants to be told of a GPU where there is none, for which older ones assumed an H100. A
    mesh says for what it is.
    """
    with ExitStack() as stack:
        if _GPUS.intersection(platforms):
            stack.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", "The Pallas Triton backend", DeprecationWarning)
            mesh = get_abstract_mesh()
            alone = mesh.empty and mesh.abstract_device is None
            if jax.__version_info__ >= (0, 11) and alone and not devices_here("gpu"):
                device = AbstractDevice("NVIDIA H100", None, "gpu")
                stack.enter_context(use_abstract_mesh(mesh.update(abstract_device=device)))
        yield
