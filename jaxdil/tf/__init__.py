"""Twins of ``tf.nn``: TensorFlow's names, argument order, defaults and numbers, on JAX arrays.

    import jaxdil.tf as nn          # instead of tf.nn, and nothing else changes

A twin gives TensorFlow 2.21's numbers, also where they surprise (`depthwise_conv2d` with a stride
and a rate above 1). It raises where TensorFlow returns garbage or ends the process, and computes
where only a kernel is missing there. Strings are taken in any case, fractions never.
"""

from jaxdil.tf._conv import (
    atrous_conv2d,
    conv1d,
    conv2d,
    conv3d,
    convolution,
)
from jaxdil.tf._depth import depth_to_space, extract_patches, space_to_depth
from jaxdil.tf._depthwise import depthwise_conv2d, separable_conv2d
from jaxdil.tf._gradients import (
    conv2d_backprop_filter,
    conv2d_backprop_input,
    depthwise_conv2d_backprop_filter,
    depthwise_conv2d_backprop_input,
)
from jaxdil.tf._morphology import dilation2d, erosion2d
from jaxdil.tf._pool import avg_pool, max_pool, pool
from jaxdil.tf._pool_nd import (
    avg_pool1d,
    avg_pool2d,
    avg_pool3d,
    max_pool1d,
    max_pool2d,
    max_pool3d,
)
from jaxdil.tf._space_to_batch import (
    batch_to_space_nd,
    required_space_to_batch_paddings,
    space_to_batch_nd,
    with_space_to_batch,
)
from jaxdil.tf._transpose import (
    atrous_conv2d_transpose,
    conv1d_transpose,
    conv2d_transpose,
    conv3d_transpose,
    conv_transpose,
)

__all__ = [
    "atrous_conv2d",
    "atrous_conv2d_transpose",
    "avg_pool",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "batch_to_space_nd",
    "conv1d",
    "conv1d_transpose",
    "conv2d",
    "conv2d_backprop_filter",
    "conv2d_backprop_input",
    "conv2d_transpose",
    "conv3d",
    "conv3d_transpose",
    "conv_transpose",
    "convolution",
    "depth_to_space",
    "depthwise_conv2d",
    "depthwise_conv2d_backprop_filter",
    "depthwise_conv2d_backprop_input",
    "dilation2d",
    "erosion2d",
    "extract_patches",
    "max_pool",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
    "pool",
    "required_space_to_batch_paddings",
    "separable_conv2d",
    "space_to_batch_nd",
    "space_to_depth",
    "with_space_to_batch",
]
