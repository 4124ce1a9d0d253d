"""jaxdil: dilated, depthwise, separable, grouped and transposed convolution for JAX."""

from jaxdil import modules, reference, streaming, tf, torch, tuning, weights
from jaxdil._adjoint import conv_input_grad, conv_kernel_grad
from jaxdil._conv import conv, conv_general_dilated
from jaxdil._convolve import convolve
from jaxdil._costs import Cost, Costs, costs
from jaxdil._coverage import coverage, covers, effective_receptive_field, receptive_inputs
from jaxdil._depthwise import depthwise_conv, separable_conv
from jaxdil._errors import MethodError
from jaxdil._explain import explain
from jaxdil._explanation import Explanation, Row
from jaxdil._install import install, installed, installed_platforms, uninstall
from jaxdil._local import conv_local, local_kernel
from jaxdil._morphology import dilation2d, erosion2d
from jaxdil._per_example import conv_per_example
from jaxdil._plan_dilations import hdc_distance, plan_dilations
from jaxdil._pool import avg_pool, max_pool
from jaxdil._receptive_field import ReceptiveField, TracedField, receptive_field
from jaxdil._resample import (
    batch_to_space,
    depth_to_space,
    space_to_batch,
    space_to_batch_paddings,
    space_to_depth,
)
from jaxdil._shapes import (
    conv_output_shape,
    conv_transpose_output_shape,
    dilate_kernel,
    effective_kernel_size,
    resolve_padding,
)
from jaxdil._transform import accelerate
from jaxdil._transpose import conv_transpose
from jaxdil._unfold import fold, unfold
from jaxdil._with_space_to_batch import with_space_to_batch

__all__ = [
    "Cost",
    "Costs",
    "Explanation",
    "MethodError",
    "ReceptiveField",
    "Row",
    "TracedField",
    "accelerate",
    "avg_pool",
    "batch_to_space",
    "conv",
    "conv_general_dilated",
    "conv_input_grad",
    "conv_kernel_grad",
    "conv_local",
    "conv_output_shape",
    "conv_per_example",
    "conv_transpose",
    "conv_transpose_output_shape",
    "convolve",
    "costs",
    "coverage",
    "covers",
    "depth_to_space",
    "depthwise_conv",
    "dilate_kernel",
    "dilation2d",
    "effective_kernel_size",
    "effective_receptive_field",
    "erosion2d",
    "explain",
    "fold",
    "hdc_distance",
    "install",
    "installed",
    "installed_platforms",
    "local_kernel",
    "max_pool",
    "modules",
    "plan_dilations",
    "receptive_field",
    "receptive_inputs",
    "reference",
    "resolve_padding",
    "separable_conv",
    "space_to_batch",
    "space_to_batch_paddings",
    "space_to_depth",
    "streaming",
    "tf",
    "torch",
    "tuning",
    "unfold",
    "uninstall",
    "weights",
    "with_space_to_batch",
]
