"""A peer's numbers: cases that its library runs, kept as small arrays, for ours to be held against.

A case is a function by name, arrays of small integers and options. They say everything: the arrays
come out of the case itself, so only results are kept, in one compressed file a library, with the
versions that made them. `tests/torch_cases.py` and `tests/tf_cases.py` write the files.
"""

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

MOST = 3
DATA = Path(__file__).parent / "data"

Results = dict[str, np.ndarray]  # "y", "grad 0", ...


class Case(NamedTuple):
    """One call of ``function(*arrays, **options)``; its results go by ``str(case)``."""

    function: str
    shapes: tuple[tuple[int, ...], ...]
    options: dict[str, Any]
    dtype: str = "float32"
    forward_only: bool = False  # what has no gradient, or none that the peer can compute

    def __str__(self) -> str:
        options = [f"{name}={value!r}" for name, value in self.options.items()]
        return f"{self.function}({', '.join([*map(str, self.shapes), *options])}) {self.dtype}"

    @property
    def differentiable(self) -> bool:
        """Whether gradients are compared too."""
        return "int" not in self.dtype and not self.forward_only

    def arrays(self) -> list[np.ndarray]:
        """The arguments, float64; whoever calls makes them of the case's dtype."""
        return [integers(f"{self} {i}", shape) for i, shape in enumerate(self.shapes)]

    def cotangent(self, shape: tuple[int, ...]) -> np.ndarray:
        """What is sent back through the result, float64."""
        return integers(f"{self} cotangent", shape)


def integers(seed: str, shape: tuple[int, ...]) -> np.ndarray:
    """Integers from -MOST to MOST: everywhere the same, as Python specifies its generator."""
    draw = random.Random(seed).random
    flat = [math.floor(draw() * (2 * MOST + 1)) - MOST for _ in range(math.prod(shape))]
    return np.array(flat, np.float64).reshape(shape)


def save(library: str, results: dict[str, Results], versions: dict[str, str]) -> None:
    """Write ``tests/data/<library>.npz``."""
    index = {case: {name: a.shape for name, a in made.items()} for case, made in results.items()}
    flat = [a.astype(np.float64).ravel() for made in results.values() for a in made.values()]
    DATA.mkdir(exist_ok=True)
    np.savez_compressed(
        DATA / f"{library}.npz",
        values=np.concatenate(flat),
        index=np.array(json.dumps(index)),
        versions=np.array(json.dumps(versions)),
    )


def load(library: str) -> tuple[dict[str, Results], dict[str, str]]:
    """The results of each case, and the versions that made them."""
    with np.load(DATA / f"{library}.npz") as file:
        values, index, versions = file["values"], str(file["index"]), str(file["versions"])
    results: dict[str, Results] = {}
    start = 0
    for case, shapes in json.loads(index).items():
        results[case] = {}
        for name, shape in shapes.items():
            stop = start + math.prod(shape)
            results[case][name] = values[start:stop].reshape(shape)
            start = stop
    assert start == values.size
    return results, json.loads(versions)


def ours(call: Callable[[Case, list[Any]], Any], cases: list[Case]) -> list[Results]:
    """What we make of some cases: ``call`` of each, and the gradient of each array.

    One program for all of them, which compiles faster than one for each.
    """
    import jax
    import jax.numpy as jnp

    def one(case: Case, arrays: list[Any]) -> Results:
        def split(*arrays: Any) -> Any:
            made = call(case, list(arrays))
            y, *more = made if isinstance(made, tuple) else (made,)
            return y, more

        if not case.differentiable:
            return named(split(*arrays), ())
        y, vjp, more = jax.vjp(split, *arrays, has_aux=True)
        grads = vjp(jnp.asarray(case.cotangent(y.shape)).astype(case.dtype))
        assert all(a.dtype == case.dtype for a in (y, *grads)), case
        return named((y, more), grads)

    def every(inputs: list[list[Any]]) -> list[Results]:
        return [one(case, arrays) for case, arrays in zip(cases, inputs, strict=True)]

    inputs = [[jnp.asarray(a).astype(case.dtype) for a in case.arrays()] for case in cases]
    return jax.jit(every, compiler_options={"xla_backend_optimization_level": 0})(inputs)


def named(made: tuple[Any, Any], grads: Any) -> Results:
    """A result, what came with it, and the gradients, each by its name."""
    y, more = made
    parts = {"more": more, "grad": grads}
    return {"y": y} | {f"{kind} {i}": a for kind in parts for i, a in enumerate(parts[kind])}


def assert_same(actual: Results, expected: Results, case: Case) -> None:
    """Fail unless two results of a case are equal; sums of a few quotients to rounding."""
    assert actual.keys() == expected.keys(), case
    for name, right in expected.items():
        got = np.asarray(actual[name]).astype(np.float64)
        text = f"{name} of {case}"
        if np.array_equal(right, np.round(right)):
            np.testing.assert_array_equal(got, right, err_msg=text)
        else:
            eps = {"float64": 2.0**-52, "float32": 2.0**-23, "bfloat16": 2.0**-7}[case.dtype]
            # Each quotient is of integers up to MOST, and rounded by half of eps.
            np.testing.assert_allclose(got, right, rtol=eps, atol=2 * eps * MOST, err_msg=text)
