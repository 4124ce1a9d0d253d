"""A function of its own in the compiled program, which XLA is asked not to merge into its caller.

Three things come of it on a CPU. Layers of the same shape share one function, which XLA optimises
once. A convolution of many slices is not fused into each of its readers, and computed again in
each. And XLA's passes over the caller, whose cost grows with its size, see one instruction in place
of hundreds.
"""

from __future__ import annotations

from collections.abc import Callable

import jax

__all__ = ["outlined"]


def outlined(fn: Callable[..., jax.Array], name: str) -> Callable[..., jax.Array]:
    """``fn`` of arrays, called and not inlined; ``name`` is what it is called by in the program."""

    def called(*arrays: jax.Array) -> jax.Array:
        # Not above: importing it gives JAX a primitive and its rules.
        from jax.experimental.xla_metadata import set_xla_metadata

        def run(*arrays: jax.Array) -> jax.Array:
            # Taken off all that is traced here: functions that fn calls are no layers.
            with set_xla_metadata(inlineable=None):
                return fn(*arrays)

        run.__name__ = name
        with set_xla_metadata(inlineable="false"):
            return jax.jit(run)(*arrays)

    return called
