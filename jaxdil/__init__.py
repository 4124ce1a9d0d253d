"""jaxdil: dilated, depthwise, separable, grouped and transposed convolution for JAX."""

from jaxdil._adjoint import conv_input_grad, conv_kernel_grad, conv_transpose
from jaxdil._conv import conv, conv_general_dilated, depthwise_conv, separable_conv
from jaxdil._errors import MethodError
from jaxdil._explain import explain
from jaxdil._shapes import (
    conv_output_shape,
    conv_transpose_output_shape,
    dilate_kernel,
    effective_kernel_size,
    resolve_padding,
)
from jaxdil._transform import accelerate
