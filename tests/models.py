"""Is a whole model still right when its convolutions are computed otherwise?

A deep network makes much of little: no bound on the rounding of a convolution says what a gradient
forty layers down may lose. So the plain model says it itself. It is run again with each parameter
and example changed in its last places, by 2^-22 of itself at most. An accelerated model is right if
it is as near to the plain one as a few times what that changes, in every output, every statistic,
every gradient and the loss of each of ten steps. That is backward stability: the result is the
plain model's for numbers that nobody could tell from the given ones.

Whole networks of Keras say it under the installed choice, whose steps take a fraction of the time.

Where a rounding decides (an activation at 0, a maximum of two equals), it does so in some of these
runs too. A convolution that is wrong is off by much more than its last places, and test_models.py
plants such faults.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from geometries import equations
from jax.extend.core import jaxpr_as_fun

import jaxdil

STEPS = 10
FACTOR = 4
_LAST_PLACES = 2.0**-22


class Run(NamedTuple):
    """Some steps of training."""

    first: dict[str, np.ndarray]
    """Every array that inference and the first step give, by name."""
    losses: np.ndarray


def perturbed(tree: Any, seed: int) -> Any:
    """Each number changed in its last places; not at all by seed 0."""
    rng = np.random.default_rng(seed)

    def change(leaf: Any) -> Any:
        leaf = np.asarray(leaf)
        if seed == 0 or not np.issubdtype(leaf.dtype, np.floating):
            return leaf
        factor = 1 + _LAST_PLACES * rng.uniform(-1, 1, leaf.shape)
        return (leaf * factor).astype(leaf.dtype)

    return jax.tree.map(change, tree)


def named(tree: Any) -> dict[str, np.ndarray]:
    """The arrays of a tree by their paths."""
    leaves, _ = jax.tree.flatten_with_path(tree)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def trained(step: Any, params: Any, state: Any, batch: Any) -> Run:
    """``step`` ten times; ``step`` gives parameters, state and what is to be compared."""
    losses, first = [], None
    for _ in range(STEPS):
        params, state, result = step(params, state, batch)
        first = named(result) if first is None else first
        losses.append(float(result["loss"]))
    return Run(first, np.array(losses))


def assert_as_good(run: Run, plain: Run, others: list[Run], around: Run | None = None) -> None:
    """Fail unless ``run`` is as near to ``plain`` as a few times the ``others`` are.

    The others are perturbed runs of the plain model; with ``around``, which is then ``run``, of the
    accelerated one, and near to that.
    """
    middle = plain if around is None else around
    assert run.first.keys() == plain.first.keys()
    wrong = []
    for name, expected in plain.first.items():
        got = run.first[name]
        assert (got.shape, got.dtype) == (expected.shape, expected.dtype), name
        error = _norm(got, expected)
        changes = [_norm(other.first[name], middle.first[name]) for other in others]
        allowed = _allowed(changes, expected)
        if not error <= allowed:  # also true for NaN
            wrong.append(f"{name}: off by {error:.3g}, allowed {allowed:.3g}")
    # A step starts where the one before it ended, so what it may lose never shrinks.
    apart = np.array([abs(other.losses - middle.losses) for other in others])
    for at, (got, expected) in enumerate(zip(run.losses, plain.losses, strict=True)):
        allowed = _allowed(apart[:, : at + 1], expected)
        if not abs(got - expected) <= allowed:
            wrong.append(f"loss of step {at}: {got} for {expected}, allowed {allowed:.3g} more")
    assert not wrong, f"{len(wrong)} beyond their rounding budget:\n" + "\n".join(wrong)


def assert_learns(plain: Run) -> None:
    """Numbers that are none, or a curve that does not fall, would prove little."""
    assert all(np.isfinite(array).all() for array in plain.first.values())
    assert plain.losses[-1] < plain.losses[0]


def convolutions(fn: Any, *args: Any) -> tuple[int, int]:
    """How many of lax's convolutions, and of ours, are in the program of a function."""
    traced = jax.make_jaxpr(fn)(*args)
    names = [eqn.primitive.name for eqn in equations(traced.jaxpr)]
    return names.count("conv_general_dilated"), names.count("jaxdil_conv")


def assert_explained(fn: Any, *args: Any, count: int) -> jaxdil.Explanation:
    """There are ``count`` convolutions of lax in ``fn``; each is rewritten, and a row of `explain`.

    Returns what `explain` says.
    """
    traced, leaves = jax.make_jaxpr(fn)(*args), jax.tree.leaves(args)
    plain = jaxpr_as_fun(traced)
    rows = jaxdil.explain(plain)(*leaves)
    assert convolutions(plain, *leaves) == (count, 0)
    assert convolutions(jaxdil.accelerate(plain), *leaves) == (0, count)
    assert len(rows) == count
    return rows


def _norm(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm((a.astype(np.float64) - b).ravel()))


def _allowed(apart: Any, expected: Any) -> float:
    # A rounding of the result itself is allowed where no perturbation shows.
    rounding = float(jnp.finfo(jnp.float32).eps) * float(np.linalg.norm(np.ravel(expected)))
    return FACTOR * max(float(np.max(apart)), rounding)
