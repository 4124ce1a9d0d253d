"""What tests of the kernels for a TPU share: problems, and a memory that nothing was written to.

A TPU does not set its memory to zero, and an interpreted kernel would not notice. So kernels run in
a simulated memory as well, which is NaN until it is written: what is read outside of an array, or
of a copy, shows.
"""

import functools

import jax
import numpy as np
import pytest
from geometries import judge, operands
from jax.experimental.pallas import tpu as pltpu

import jaxdil
from jaxdil._methods import load
from jaxdil._pallas import mended

PINNED = "pallas_tpu"

SIMULATED = pltpu.InterpretParams(
    detect_races=True, out_of_bounds_reads="raise", uninitialized_memory="nan"
)


def problems(g):
    """The problem of the convolution and that of its kernel gradient."""
    x, w, c = (jax.ShapeDtypeStruct(s, np.float32) for s in (g.x_shape, g.w_shape, g.y_shape))
    forward = functools.partial(jaxdil.conv, **g.options)
    gradient = functools.partial(jaxdil.conv_kernel_grad, kernel_shape=g.w_shape, **g.options)
    return [
        jaxdil.explain(fn, platform="tpu", gradients=False)(*args)[0].problem
        for fn, args in ((forward, (x, w)), (gradient, (x, c)))
    ]


def sure(dw, doubt):
    """A kernel gradient, which is in no doubt: that would have it computed again for no reason."""
    assert doubt is None or not np.any(doubt)
    return dw


def judge_simulated(g, *, forward=None, gradient=None):
    """Fail unless functions of the method give in that memory what the definition does."""
    x, w, c = operands(g, np.dtype(np.float32))
    module, rank = load(PINNED), g.rank
    of_forward, of_gradient = problems(g)
    if forward is not None:
        y = getattr(module, forward)(x, w, of_forward, interpret=SIMULATED)
        judge(y, "forward", g, np.float32)
    if gradient is not None:
        # (C, *S, N) and (*P, N, O), as the kernel gradient of the library has them.
        x, c = np.moveaxis(np.moveaxis(x, 0, -1), -2, 0), np.moveaxis(c, 0, rank)
        with pytest.MonkeyPatch.context() as patch:
            again = mended.mended
            patch.setattr(
                mended,
                "mended",
                lambda dw, doubt, *args, **how: again(sure(dw, doubt), doubt, *args, **how),
            )
            dw = getattr(module, gradient)(x, c, of_gradient, interpret=SIMULATED)
        judge(np.moveaxis(dw, 0, rank), "kernel gradient", g, np.float32)
