"""Modules of papers about dilated and separable convolution, as pure functions of their parameters.

    params = init_aspp(jax.random.key(0), 2048, 256)        # trees of arrays, nothing else
    y = aspp(params, x, output_stride=8)

A module takes its parameters first, then its input, channels last, in any number of spatial axes.
What the paper fixes is a default, activation and norm are arguments, and parameters that
`init_batch_norm` made can be folded away for inference. One paper a file:

* context module, basic and large, with its identity initialiser: arXiv:1511.07122
* atrous spatial pyramid pooling with image pooling, DeepLabv3: arXiv:1706.05587
* degridding, dilated residual networks: arXiv:1705.09914
* smoothed dilated convolution and group interaction: arXiv:1808.08931
* separable residual block, Xception: arXiv:1610.02357; atrous, DeepLabv3+: arXiv:1802.02611
* inverted residual, MobileNetV2: arXiv:1801.04381
* gated stack, WaveNet: arXiv:1609.03499
* one kernel at several rates, as in TridentNet: arXiv:1901.01892
* strides made dilations, DeepLab: arXiv:1412.7062
"""

from jaxdil.modules._aspp import aspp, init_aspp
from jaxdil.modules._context import context_module, init_context_module
from jaxdil.modules._degridding import degridding, init_degridding
from jaxdil.modules._layer import conv_layer, init_conv_layer
from jaxdil.modules._mobilenet import init_inverted_residual, inverted_residual
from jaxdil.modules._multirate import multi_rate_conv
from jaxdil.modules._norm import batch_norm, fold_batch_norm, init_batch_norm
from jaxdil.modules._smoothed import (
    group_interaction,
    init_group_interaction,
    init_smoothed_conv,
    smoothed_conv,
)
from jaxdil.modules._strides import remove_strides, stack
from jaxdil.modules._wavenet import init_wavenet_stack, wavenet_stack
from jaxdil.modules._xception import (
    atrous_xception_block,
    init_atrous_xception_block,
    init_xception_block,
    xception_block,
)

__all__ = [
    "aspp",
    "atrous_xception_block",
    "batch_norm",
    "context_module",
    "conv_layer",
    "degridding",
    "fold_batch_norm",
    "group_interaction",
    "init_aspp",
    "init_atrous_xception_block",
    "init_batch_norm",
    "init_context_module",
    "init_conv_layer",
    "init_degridding",
    "init_group_interaction",
    "init_inverted_residual",
    "init_smoothed_conv",
    "init_wavenet_stack",
    "init_xception_block",
    "inverted_residual",
    "multi_rate_conv",
    "remove_strides",
    "smoothed_conv",
    "stack",
    "wavenet_stack",
    "xception_block",
]
