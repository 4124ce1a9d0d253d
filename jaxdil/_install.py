"""Every convolution a process compiles, served by our choice: lax's own lowering rule exchanged.

Frameworks own their jit, so there is no function to hand to `accelerate`. But whatever they trace,
its convolutions reach the compiler as lax's primitive, and how that becomes a program is an entry
in a table of JAX, one a platform. `install` writes ours there and keeps what stood there before.

JAX has a public function that writes an entry and none that reads one, so this file alone uses two
private names, ``mlir._lowerings`` and ``mlir._platform_specific_lowerings``.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from jax import lax
from jax.interpreters import mlir

from jaxdil._dispatch import check_pin
from jaxdil._errors import error
from jaxdil._plain import plain_p
from jaxdil._primitive import PLATFORMS, lowering

__all__ = ["install", "installed", "installed_platforms", "uninstall"]

_lax_p = lax.conv_general_dilated_p

# One lock around every change, and what was there before: for each platform the entry of lax's
# primitive, or None if the common rule served it, and the method now in its place.
_lock = threading.RLock()
_before: dict[str, Any] = {}
_methods: dict[str, str] = {}


def install(*, platforms: Sequence[str] | str | None = None, method: str = "auto") -> None:
    """From now on, serve every convolution that this process compiles by the fastest known method.

    Nobody's code changes: Keras' ``fit`` and ``predict``, Equinox's ``filter_jit``, Haiku's
    ``transform``, Flax and bare lax, forward and in derivatives, imported before or after.

    Functions that were compiled before keep their code, and those compiled while jaxdil is
    installed keep theirs after `uninstall`; ``jax.clear_caches()`` makes JAX compile anew. Install
    before the first call. Calling it again changes nothing, or the platforms and the method.

    Args:
      platforms: "cpu", "cuda", "rocm", "tpu" ("gpu" for both of the middle), one or several; None
        for all.
      method: as in `accelerate`: "auto", or a name, or a name with " or auto".

    Raises:
      ValueError: for an unknown platform or method.
      TypeError: if method is no string.
      MethodError: when a function is compiled, if a pinned method cannot serve in it.

    Cost: none at run time; while a function is compiled, a choice for each convolution.

    >>> jaxdil.install(platforms="cpu")
    >>> jaxdil.installed_platforms()
    ('cpu',)
    >>> jaxdil.uninstall()
    >>> jaxdil.installed_platforms()
    ()
    """
    names = _platforms("install", platforms)
    check_pin("install", method)
    with _lock:
        for name in names:
            _write(name, method)


def uninstall(*, platforms: Sequence[str] | str | None = None) -> None:
    """Undo `install`: put back exactly what lax's lowering was before. Harmless if not installed.

    Args:
      platforms: as in `install`; None for all.

    Raises:
      ValueError: for an unknown platform.

    >>> jaxdil.uninstall()
    """
    names = _platforms("uninstall", platforms)
    with _lock:
        for name in names:
            _restore(name)


@contextlib.contextmanager
def installed(
    *, platforms: Sequence[str] | str | None = None, method: str = "auto"
) -> Iterator[None]:
    """`install` for a stretch of code; afterwards everything is as it was before it.

    It holds for the whole process, other threads included, while the stretch lasts. A function
    compiled before the stretch keeps its code within it, so call it for the first time inside.

    Args:
      platforms: as in `install`.
      method: as in `install`.

    Returns:
      A context manager.

    Raises:
      ValueError: for an unknown platform or method.

    >>> with jaxdil.installed(platforms="cpu"):
    ...     jaxdil.installed_platforms()
    ('cpu',)
    """
    with _lock:
        before = dict(_methods)
        install(platforms=platforms, method=method)
    try:
        yield
    finally:
        with _lock:
            for name in _platforms("installed", platforms):
                if name in before:
                    _write(name, before[name])
                else:
                    _restore(name)


def installed_platforms() -> tuple[str, ...]:
    """The platforms for which jaxdil is installed in this process.

    Returns:
      Of "cpu", "cuda", "rocm", "tpu" those that `install` was called for, and not undone.

    >>> jaxdil.installed_platforms()
    ()
    """
    with _lock:
        return tuple(name for name in PLATFORMS if name in _methods)


def _platforms(where: str, given: Any) -> tuple[str, ...]:
    if given is None:
        return PLATFORMS
    if not isinstance(given, (str, Sequence)):
        what = f"platforms must be a name or several, got {given!r}"
        raise TypeError(error(where, what, "Pass platforms='cpu', say, or None for all."))
    names = (given,) if isinstance(given, str) else tuple(given)
    unknown = [name for name in names if name not in (*PLATFORMS, "gpu")]
    if unknown:
        known = ", ".join(map(repr, (*PLATFORMS, "gpu")))
        raise ValueError(error(where, f"platforms must be among {known}, got {unknown[0]!r}"))
    both = {"gpu": ("cuda", "rocm")}
    return tuple(each for name in names for each in both.get(name, (name,)))


def _write(platform: str, method: str) -> None:
    table = mlir._platform_specific_lowerings[platform]  # noqa: SLF001 - see the top of this file
    if platform not in _methods:
        _before[platform] = table.get(_lax_p)
        # What is left to lax is lowered by the rule that served lax here until now.
        table[plain_p] = table.get(_lax_p) or mlir._lowerings[_lax_p]  # noqa: SLF001 - the same
    rule = lowering(platform, method=method, pooled=False)
    mlir.register_lowering(_lax_p, rule, platform=platform)
    _methods[platform] = method


def _restore(platform: str) -> None:
    if platform not in _methods:
        return
    table = mlir._platform_specific_lowerings[platform]  # noqa: SLF001 - see the top of this file
    before = _before.pop(platform)
    if before is None:
        del table[_lax_p]
    else:
        table[_lax_p] = before
    del table[plain_p], _methods[platform]
