"""PyTorch's numbers for jaxdil.torch.

    python tests/torch_cases.py      # writes tests/data/torch.npz; needs torch and numpy alone

Options that PyTorch has in its modules only (padding_mode, output_size) are run by the modules.
"""

import platform
import sys
import warnings

import numpy as np
from peer import Case, Results, named, save

X1, X2, X3 = (2, 4, 11), (2, 4, 7, 8), (1, 2, 5, 4, 6)
W1, W2, W3 = (6, 4, 3), (6, 4, 3, 2), (3, 2, 2, 3, 1)
HALVES = ["bfloat16", "float64"]


def convs():
    """conv1d, conv2d, conv3d."""
    two = [
        ((X2, W2), {}),
        ((X2, W2, (6,)), {"stride": 2, "padding": 1}),
        ((X2, W2, (6,)), {"stride": [2, 3], "padding": (2, 1), "dilation": (2, 1)}),
        ((X2, W2), {"stride": (3,), "dilation": 2, "padding": [3]}),
        ((X2, (6, 2, 3, 3), (6,)), {"padding": "same", "dilation": (2, 3), "groups": 2}),
        ((X2, (4, 1, 2, 4)), {"padding": "same", "dilation": (3, 1), "groups": 4}),
        ((X2, (8, 1, 3, 3)), {"stride": 2, "padding": "valid", "dilation": 2, "groups": 4}),
        ((X2[1:], W2, (6,)), {"stride": 2, "padding": 1}),
        (((0, *X2[1:]), W2, (6,)), {"padding": 1}),
    ]
    for mode in ("reflect", "replicate", "circular"):
        two += [
            ((X2, W2, (6,)), {"padding": (2, 1), "dilation": 2, "padding_mode": mode}),
            ((X2[1:], W2), {"padding": "same", "padding_mode": mode}),
            ((X2, (2, 4, 3, 3)), {"stride": 2, "padding": 3, "padding_mode": mode}),
        ]
    two.append(((X2, (4, 2, 1, 3)), {"groups": 2, "padding": 1, "padding_mode": "circular"}))
    one = [
        ((X1, W1, (6,)), {}),
        ((X1, W1), {"stride": 3, "padding": 4, "dilation": 2}),
        ((X1, (6, 2, 4), (6,)), {"padding": "same", "dilation": 3, "groups": 2}),
        ((X1[1:], W1), {"stride": [2]}),
        ((X1, W1, (6,)), {"padding": 5, "stride": 2, "padding_mode": "reflect"}),
        ((X1[1:], W1), {"padding": 7, "dilation": 2, "padding_mode": "replicate"}),
        ((X1, (6, 4, 4)), {"padding": "same", "padding_mode": "circular"}),
    ]
    three = [
        ((X3, W3, (3,)), {"stride": (1, 2, 3), "padding": (1, 0, 2)}),
        ((X3, (4, 1, 2, 2, 3)), {"padding": "same", "dilation": (1, 2, 1), "groups": 2}),
        ((X3[1:], W3), {"padding": 1, "padding_mode": "reflect"}),
        ((X3, W3, (3,)), {"padding": (2, 1, 3), "stride": 2, "padding_mode": "circular"}),
    ]
    yield Case("conv1d", (X1, W1, (6,)), {"dilation": 2, "padding": 2}, "bfloat16")
    for name, table in [("conv1d", one), ("conv2d", two), ("conv3d", three)]:
        yield from (Case(name, *entry) for entry in table)
    for dtype in HALVES:
        yield Case("conv2d", ((1, 2, 6, 5), (4, 1, 2, 3), (4,)), {"stride": 2, "groups": 2}, dtype)
        yield Case(
            "conv2d", ((1, 2, 6, 5), (2, 2, 3, 3)), {"padding": 2, "padding_mode": "reflect"}, dtype
        )


def transposes():
    """conv_transpose1d, conv_transpose2d, conv_transpose3d."""
    x1, x2, x3 = (2, 4, 5), (2, 4, 3, 4), (1, 2, 3, 2, 2)
    w1, w2, w3 = (4, 3, 3), (4, 3, 3, 2), (2, 3, 2, 1, 3)
    one = [
        ((x1, w1, (3,)), {}),
        ((x1, w1), {"stride": 2, "padding": 1, "output_padding": 1}),
        ((x1, w1, (6,)), {"stride": 3, "groups": 2, "dilation": 2, "output_padding": [2]}),
        ((x1[1:], w1, (3,)), {"stride": 2, "dilation": 4, "output_padding": 3}),
        ((x1, w1), {"stride": 3, "padding": 1, "output_size": (15,)}),
    ]
    two = [
        ((x2, w2, (3,)), {}),
        ((x2, w2), {"stride": 2, "padding": 1, "output_padding": 1}),
        (
            (x2, w2, (6,)),
            {"stride": (2, 3), "padding": (1, 0), "output_padding": (0, 2), "groups": 2},
        ),
        ((x2, w2), {"stride": (1, 2), "dilation": (3, 2), "output_padding": (2, 1), "padding": 2}),
        ((x2, (4, 1, 2, 4)), {"stride": 2, "groups": 4, "padding": (0, 1)}),
        ((x2[1:], w2, (3,)), {"stride": 2, "dilation": 2}),
        (((0, *x2[1:]), w2, (3,)), {"stride": 2}),
        ((x2, (4, 2, 1, 1)), {"stride": 3, "output_padding": 2}),
        ((x2, w2, (3,)), {"stride": 3, "padding": 1, "output_size": (9, 11)}),
        ((x2, w2), {"stride": 2, "dilation": 2, "output_size": (2, 3, 10, 9)}),
        ((x2[1:], w2), {"stride": 2, "groups": 2, "output_size": (6, 7, 9)}),
    ]
    three = [
        ((x3, w3, (3,)), {"stride": (2, 1, 3), "padding": (1, 0, 1), "output_padding": (1, 0, 2)}),
        ((x3[1:], w3), {"dilation": 2, "stride": 2, "groups": 2}),
        ((x3, w3), {"stride": 2, "output_size": (6, 4, 5)}),
    ]
    for rank, table in enumerate([one, two, three], start=1):
        yield from (Case(f"conv_transpose{rank}d", *entry) for entry in table)
    for dtype in HALVES:
        options = {"stride": 2, "padding": 1, "output_padding": 1, "groups": 2}
        yield Case("conv_transpose2d", ((1, 2, 3, 4), (2, 2, 3, 3), (4,)), options, dtype)


def patches():
    """unfold, fold, pixel_shuffle, pixel_unshuffle."""
    x = (2, 3, 7, 8)
    for options in [
        {"kernel_size": 3},
        {"kernel_size": (2, 3), "dilation": (3, 1), "padding": (1, 2), "stride": (2, 3)},
        {"kernel_size": 2, "stride": 3},
        {"kernel_size": [3, 2], "padding": 2, "stride": [1, 4], "dilation": 2},
    ]:
        yield Case("unfold", (x,), options)
        yield Case("unfold", (x[1:],), options)
    yield Case("unfold", ((0, 3, 7, 8),), {"kernel_size": 3})
    for shape, options in [
        ((2, 18, 9), {"output_size": (7, 8), "kernel_size": 3, "stride": 2}),  # windows do not tile
        ((2, 8, 9), {"output_size": (7, 8), "kernel_size": 2, "stride": 3, "padding": (1, 0)}),
        ((12, 6), {"output_size": (5, 7), "kernel_size": (3, 2), "dilation": (2, 1)}),
        ((2, 18, 20), {"output_size": (5, 6), "kernel_size": (2, 3), "padding": 1, "dilation": 2}),
        ((0, 9, 4), {"output_size": 4, "kernel_size": 3}),
    ]:
        yield Case("fold", (shape,), options)
    for dtype in HALVES:
        yield Case("unfold", ((1, 2, 4, 5),), {"kernel_size": 2, "padding": 1}, dtype)
        yield Case("fold", ((1, 8, 12),), {"output_size": (4, 5), "kernel_size": 2}, dtype)
    for shape, factor in [
        ((2, 12, 3, 4), 2),
        ((9, 2, 3), 3),
        ((2, 1, 4, 2, 2), 1),
    ]:
        yield Case("pixel_shuffle", (shape,), {"upscale_factor": factor})
    for shape, factor in [((2, 3, 4, 6), 2), ((2, 6, 3), 3)]:
        yield Case("pixel_unshuffle", (shape,), {"downscale_factor": factor})


def pads():
    """pad."""
    constant = [(1, 2), (1, 2, 0, 3), (-1, 2), (2, -3, -1, -1), (1, 0, 0, 1, 2, 1, 1, 1), ()]
    for pad in constant:
        yield Case("pad", ((2, 3, 4, 5),), {"pad": pad})
    yield Case("pad", ((3, 4),), {"pad": [1, 1], "mode": "constant", "value": 2.0})
    yield Case("pad", ((3, 4),), {"pad": (1, -1), "value": 7}, "int32")
    for mode in ("reflect", "replicate", "circular"):
        for shape, pad in [
            ((2, 5), (1, 2)),
            ((1, 2, 5), (4, 4)),
            ((1, 2, 5), (-1, 2)),
            ((2, 4, 5), (3, -1, 0, 2)),
            ((2, 2, 4, 5), (1, 2, 3, 0)),
            ((1, 2, 3, 4, 3), (1, 2, 3, 0, -1, 2)),
            ((0, 2, 4, 5), (1, 1, 1, 1)),
        ]:
            yield Case("pad", (shape,), {"pad": pad, "mode": mode})
        yield Case("pad", ((1, 2, 5),), {"pad": (2, 1), "mode": mode}, "bfloat16")
    yield Case("pad", ((1, 2, 5),), {"pad": (9, 7), "mode": "replicate"}, "float64")
    yield Case("pad", ((1, 2, 5),), {"pad": (5, 0), "mode": "circular"})


def pools():
    """max_pool1d, max_pool2d, max_pool3d, avg_pool1d, avg_pool2d, avg_pool3d."""
    x1, x2, x3 = (2, 3, 11), (2, 3, 7, 8), (1, 2, 4, 5, 6)
    shared = {
        1: [
            (x1, {"kernel_size": 3}),
            (x1[1:], {"kernel_size": [4], "stride": 3, "padding": 2, "ceil_mode": True}),
            ((2, 3, 5), {"kernel_size": 8, "ceil_mode": True}),
        ],
        2: [
            (x2, {"kernel_size": (2, 3)}),
            (x2, {"kernel_size": 3, "stride": 2, "padding": 1}),
            (x2, {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}),
            (x2, {"kernel_size": 2, "stride": (4, 3), "padding": 1, "ceil_mode": True}),
            (x2[1:], {"kernel_size": (3, 2), "stride": [1], "padding": (1, 0)}),
            ((0, 3, 7, 8), {"kernel_size": 3}),
        ],
        3: [
            (x3, {"kernel_size": 2, "ceil_mode": True}),
            (x3[1:], {"kernel_size": (2, 3, 2), "stride": (1, 2, 3), "padding": (1, 1, 0)}),
        ],
    }
    for rank, table in shared.items():
        for shape, options in table:
            yield Case(f"max_pool{rank}d", (shape,), options)
            yield Case(f"avg_pool{rank}d", (shape,), options)
            if "padding" in options:
                yield Case(f"avg_pool{rank}d", (shape,), {**options, "count_include_pad": False})
                yield Case(f"max_pool{rank}d", (shape,), {**options, "dilation": 2})
    yield Case("max_pool2d", (x2,), {"kernel_size": 2, "stride": 1, "dilation": (3, 2)})
    for rank, (shape, options) in enumerate([shared[1][1], shared[2][3], shared[3][1]], start=1):
        yield Case(f"max_pool{rank}d", (shape,), {**options, "return_indices": True})
    yield Case("max_pool2d", ((1, 1, 4, 4),), {"kernel_size": 2}, "int32")
    for divisor in (7, -2):
        yield Case(
            "avg_pool2d", (x2,), {"kernel_size": 3, "padding": 1, "divisor_override": divisor}
        )
    yield Case("avg_pool3d", (x3,), {"kernel_size": 2, "divisor_override": 3})
    for dtype in HALVES:
        yield Case(
            "max_pool2d", ((1, 2, 5, 5),), {"kernel_size": 3, "stride": 1, "padding": 1}, dtype
        )
        yield Case(
            "avg_pool2d", ((1, 2, 5, 5),), {"kernel_size": 3, "stride": 2, "padding": 1}, dtype
        )


CASES = [*convs(), *transposes(), *patches(), *pads(), *pools()]


def run(case: Case) -> Results:
    """What PyTorch makes of a case: its result, and the gradient of each array."""
    import torch

    dtype = getattr(torch, case.dtype)
    arrays = [torch.from_numpy(a).to(dtype) for a in case.arrays()]
    for a in arrays:
        a.requires_grad_(case.differentiable)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "same" of even kernels copies
        made = _call(torch, case, arrays)
    y, *more = made if isinstance(made, tuple) else (made,)
    grads = ()
    if case.differentiable:
        g = torch.from_numpy(case.cotangent(tuple(y.shape))).to(dtype)
        grads = torch.autograd.grad(y, arrays, g)
    results = named((y, more), grads)
    return {name: t.detach().to(torch.float64).numpy() for name, t in results.items()}


def _call(torch, case, arrays):
    options = dict(case.options)
    size = options.pop("output_size", None) if "transpose" in case.function else None
    if size is None and "padding_mode" not in options:
        return getattr(torch.nn.functional, case.function)(*arrays, **options)
    rank, groups = int(case.function[-2]), options.get("groups", 1)
    weight, bias = arrays[1], arrays[2] if len(arrays) > 2 else None
    first, second = weight.shape[0], weight.shape[1] * groups
    name, inner, outer = (
        ("Conv", second, first) if size is None else ("ConvTranspose", first, second)
    )
    layer = getattr(torch.nn, f"{name}{rank}d")
    module = layer(inner, outer, tuple(weight.shape[2:]), bias=bias is not None, **options)
    values = {"weight": weight} | ({} if bias is None else {"bias": bias})
    more = {} if size is None else {"output_size": list(size)}
    return torch.func.functional_call(module.to(weight.dtype), values, (arrays[0],), more)


if __name__ == "__main__":
    import torch

    versions = {"torch": torch.__version__, "numpy": np.__version__}
    versions |= {"python": platform.python_version(), "machine": platform.machine()}
    save("torch", {str(case): run(case) for case in CASES}, versions)
    sys.stdout.write(f"{len(CASES)} cases\n")
