"""conv_p: lax's convolution with two parameters more; how it is computed is chosen when lowered.

They are the method, or that it be chosen, and whether only a pooling reads the result.

A convolution is bilinear, and both its transposes are convolutions:

    <g, conv(dx, w)> = <conv_t(g, w), dx>      stride <-> input dilation, kernel flipped
    <g, conv(x, dw)> = <conv_k(x, g), dw>      stride <-> kernel dilation, groups -> batch groups

so derivatives of every order stay in the family. lax already knows both, and how to batch them:
each rule here traces lax's for the same parameters and binds conv_p in its place.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import ClosedJaxpr, Primitive, jaxpr_as_fun
from jax.interpreters import ad, batching, mlir

from jaxdil import _dispatch, _layout, _turns
from jaxdil._choice import Choice
from jaxdil._errors import MethodError, error
from jaxdil._methods import METHODS
from jaxdil._outline import outlined
from jaxdil._plain import plain_p
from jaxdil._problem import Problem
from jaxdil._swap import swap
from jaxdil._triton import for_triton

__all__ = [
    "PLATFORMS",
    "choice_of",
    "conv_p",
    "convolution",
    "is_explicitly_sharded",
    "lowered_by",
    "lowering",
    "of_lax",
    "ours",
]

# The platforms a choice is made for, each for itself. JAX has others; they take the common rule.
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")

conv_p = Primitive("jaxdil_conv")
_lax_p = lax.conv_general_dilated_p


def of_lax(params: dict[str, Any]) -> dict[str, Any]:
    """The parameters of an equation of conv_p that are lax's."""
    return {name: value for name, value in params.items() if name not in ("method", "pooled")}


def ours(fn: Callable[..., jax.Array], method: str) -> Callable[..., jax.Array]:
    """``fn`` of arrays, its convolutions bound to conv_p."""

    def swapped(*arrays: jax.Array) -> jax.Array:
        closed = jax.make_jaxpr(fn)(*arrays)
        return _run(swap(closed, _lax_p, conv_p, method=method, pooled=False), *arrays)

    return swapped


def convolution(x: jax.Array, w: jax.Array, *, method: str, **arguments: Any) -> jax.Array:
    """``lax.conv_general_dilated(x, w, **arguments)``, checked by lax, by the method."""
    closed = jax.make_jaxpr(functools.partial(lax.conv_general_dilated, **arguments))(x, w)
    *before, eqn = closed.jaxpr.eqns
    if before or eqn.primitive is not _lax_p:
        return _run(swap(closed, _lax_p, conv_p, method=method, pooled=False), x, w)
    # Bound here, so that profilers and `explain` find the caller and not a program traced inside.
    return conv_p.bind(x, w, method=method, pooled=False, **eqn.params)


def _run(closed: ClosedJaxpr, *arrays: jax.Array) -> jax.Array:
    (y,) = jaxpr_as_fun(closed)(*arrays)
    return y


def choice_of(x: Any, w: Any, y: Any, params: dict[str, Any], platform: str | None) -> Choice:
    """The method for an equation of conv_p on a platform, and why."""
    method = params["method"]
    beyond = _reason_for_lax(x, w)
    if beyond and method in METHODS and method != "xla":
        raise MethodError(error("jaxdil", f"method={method!r} cannot serve: {beyond}"))
    if beyond:
        return Choice("xla", beyond)
    return _dispatch.choose(_layout.problem_of(x, w, y, params), pinned=method, platform=platform)


def _reason_for_lax(x: Any, w: Any) -> str | None:
    """Why no method but lax can serve two arrays, whatever the convolution; or None."""
    if not all(isinstance(size, int) for size in (*x.shape, *w.shape)):
        return "sizes are symbols, known only when it runs"
    if is_explicitly_sharded(x) or is_explicitly_sharded(w):
        return "the types of x or w say how they are sharded, and lax knows how to carry that on"
    return None


def is_explicitly_sharded(x: Any) -> bool:
    """Whether the type of an array says how it is sharded."""
    sharding = getattr(jax.typeof(x) if isinstance(x, jax.Array) else x, "sharding", None)
    return any(axes is not None for axes in getattr(sharding, "spec", ()))


# --- rules ----------------------------------------------------------------------------------------
# -------------------------------------------------------------------------------------------


@functools.cache
def _compiled(**params: Any) -> Callable[..., jax.Array]:
    return jax.jit(functools.partial(conv_p.bind, **params))


def _impl(x: jax.Array, w: jax.Array, **params: Any) -> jax.Array:
    return _compiled(**params)(x, w)


def _abstract(x: Any, w: Any, **params: Any) -> Any:
    y, _ = _lax_p.abstract_eval(x, w, **of_lax(params))
    # A pinned method that can serve nowhere is refused here, in the user's own call.
    choice_of(x, w, y, params, None)
    return y


def _jvp(primals: Any, tangents: Any, **params: Any) -> Any:
    # What is derived is kept for the way back, and read by more than a pooling.
    return _bilinear(primals, tangents, **{**params, "pooled": False})


def _transpose_x(g: jax.Array, x: Any, w: jax.Array, **params: Any) -> jax.Array:
    def rule(g: jax.Array, w: jax.Array) -> jax.Array:
        (dx,) = jax.linear_transpose(lambda x: _lax_p.bind(x, w, **of_lax(params)), x.aval)(g)
        return dx

    return ours(rule, _dispatch.derived(params["method"]))(g, w)


def _transpose_w(g: jax.Array, x: jax.Array, w: Any, **params: Any) -> jax.Array:
    def rule(g: jax.Array, x: jax.Array) -> jax.Array:
        (dw,) = jax.linear_transpose(lambda w: _lax_p.bind(x, w, **of_lax(params)), w.aval)(g)
        return dw

    return ours(rule, _dispatch.derived(params["method"]))(g, x)


def _batch(
    arrays: tuple[jax.Array, jax.Array], axes: tuple[Any, Any], **params: Any
) -> tuple[jax.Array, int]:
    batch, channels = params["dimension_numbers"].out_spec[:2]
    # Where lax's own rule leaves the new axis, so that it need not be moved.
    out_axis = batch if axes[1] is None else channels
    rule = jax.vmap(lambda x, w: _lax_p.bind(x, w, **of_lax(params)), axes, out_axis)
    return ours(rule, _dispatch.derived(params["method"]))(*arrays), out_axis


def lowering(platform: str | None, **fixed: Any) -> Any:
    """How conv_p becomes a program on a platform; with its own parameters fixed, lax's."""

    def lowered(x: jax.Array, w: jax.Array, **told: Any) -> jax.Array:
        params = of_lax(told)
        y, _ = _lax_p.abstract_eval(jax.typeof(x), jax.typeof(w), **params)
        choice = choice_of(x, w, y, told, platform)
        with jax.named_scope(f"jaxdil.{choice.method}"):
            x, params = _layout.crop_negative(x, params)
            if choice.method == "xla" and not _is_missed(x, w, platform):
                return plain_p.bind(x, w, **params)
            problem = _layout.problem_of(x, w, y, params)
            return _canonically(x, w, problem, params["dimension_numbers"], choice.method, platform)

    return lowered_by(functools.partial(lowered, **fixed))


def lowered_by(fn: Callable[..., jax.Array]) -> Any:
    """A lowering rule of what a function does, in which it is known what the program is for."""
    lower = mlir.lower_fun(fn, multiple_results=False)

    def rule(ctx: mlir.LoweringRuleContext, *operands: Any, **params: Any) -> Any:
        module = ctx.module_context
        purpose = _dispatch.lowered(
            exported=module.lowering_parameters.for_export,
            partitioned=_is_partitioned(module.axis_context),
        )
        with purpose, for_triton(ctx.platforms or module.platforms):
            return lower(ctx, *operands, **params)

    return rule


def _is_partitioned(axes: Any) -> bool:
    """Whether XLA will divide the program among devices, and not all of it was divided by hand."""
    if hasattr(axes, "manual_axes"):
        return set(axes.manual_axes) != set(axes.mesh.axis_names)
    return getattr(axes, "num_devices", None) not in (None, 1)


def _is_missed(x: Any, w: Any, platform: str | None) -> bool:
    """Whether XLA may have a fast kernel for what is left to it on a CPU, and not find it.

    The kernel takes channels last. XLA turns other layouts into that, those of kernel gradients
    among them, in the entry of a program alone: not in a loop, a branch or a function that is
    called, where it goes through such a convolution element by element.
    """
    single = jnp.issubdtype(x.dtype, jnp.floating) and x.dtype.itemsize <= 4 and x.dtype == w.dtype
    return platform == "cpu" and x.ndim <= 4 and single and _reason_for_lax(x, w) is None


def _canonically(
    x: jax.Array, w: jax.Array, problem: Problem, numbers: Any, method: str, platform: str | None
) -> jax.Array:
    """The convolution by a method, which knows one layout, from and to the caller's.

    What moves data moves together with the method, which may move it back: XLA cancels the two.
    What is a reshape of x or w stays outside; at the entry of a function XLA may copy for it.
    """
    x_order, w_order, y_order = _layout.orders(numbers)
    # Where XLA divides the program, a loop over the batch would gather all of it.
    whole = platform == "cpu" and not _dispatch.is_partitioned()
    turns = whole and _turns.needed(problem, method)
    if not turns:  # which reshape what they cut out
        x, x_order = _reshaped(x, x_order)
        w, w_order = _reshaped(w, w_order)

    def part(x: jax.Array, w: jax.Array, problem: Problem) -> jax.Array:
        x, w = _layout.transpose(x, x_order), _layout.transpose(w, w_order)
        in_lines = not turns and not problem.channels_first
        y = _dispatch.convolve(x, w, problem, method, platform, in_lines=in_lines)
        return _layout.transpose(y, y_order)

    def served(x: jax.Array, w: jax.Array) -> jax.Array:
        if not turns:
            return part(x, w, problem)
        orders = _turns.Orders(x_order, w_order, y_order)
        return _turns.in_turns(part, x, w, problem, method, orders)

    # Not for the few samples of a step of a stream: XLA would copy the registers for a call.
    apart = platform == "cpu" and math.prod(problem.size) > 8 and method != "xla"
    return (outlined(served, f"jaxdil_{method}") if apart else served)(x, w)


def _reshaped(x: jax.Array, order: tuple[int, ...]) -> tuple[jax.Array, tuple[int, ...]]:
    """An array in the order asked for, if a reshape makes it so, and the order still to bring."""
    if _layout.moves(x.shape, order):
        return x, order
    return _layout.transpose(x, order), tuple(range(x.ndim))


# --- registration ---------------------------------------------------------------------------------
# ------------------------------------------------------------------------------------

conv_p.def_impl(_impl)
conv_p.def_abstract_eval(_abstract)
ad.defbilinear(conv_p, _transpose_x, _transpose_w)
_bilinear = ad.primitive_jvps[conv_p]
ad.primitive_jvps[conv_p] = _jvp
batching.primitive_batchers[conv_p] = _batch
mlir.register_lowering(conv_p, lowering(None))
for _platform in PLATFORMS:
    mlir.register_lowering(conv_p, lowering(_platform), platform=_platform)
