"""Causal convolution of a stream: the past is carried as a state, by pure functions.

    state    = init((N, C), w, dilation=d)          nothing has come yet
    y, state = step(state, x, w)                    one frame
    y, state = chunk(state, x, w)                   any number of frames
    y, state = prefill(x, w, dilation=d)            from the first frame on
    y        = causal_conv(x, w, dilation=d)        whole sequences, packed ones too

However a sequence is cut, the outputs are those of `causal_conv` to rounding, and so are the
gradients. A `State` is a pytree of fixed size: the carry of a scan, a donated argument. It knows
its geometry, so only `init` and `prefill` are told. `network` does the same for a function of any
number of convolutions; `wavenet_stack`, `tcn_stack` and `short_conv` are such functions.
"""

from jaxdil.streaming._carry import chunk, init, prefill, step
from jaxdil.streaming._causal import causal_conv
from jaxdil.streaming._network import Network, network
from jaxdil.streaming._registers import State
from jaxdil.streaming._stacks import short_conv, tcn_stack, wavenet_stack

__all__ = [
    "Network",
    "State",
    "causal_conv",
    "chunk",
    "init",
    "network",
    "prefill",
    "short_conv",
    "step",
    "tcn_stack",
    "wavenet_stack",
]
