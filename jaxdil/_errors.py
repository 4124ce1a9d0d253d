"""The exceptions, and how a shape error is worded: who, what came, what is needed, what to do.

Mistakes of the caller are ``ValueError`` (a value that cannot be) and ``TypeError`` (a kind of
thing that cannot be). A method that cannot serve what it was pinned to is a ``MethodError``.
"""

from __future__ import annotations

__all__ = ["MethodError", "error"]


class MethodError(NotImplementedError):
    """A pinned method cannot serve this convolution; the message gives every reason."""


def error(where: str, what: str, *details: str) -> str:
    """The house's wording: ``where: what``, then one indented line a detail.

    >>> print(error("conv", "stride must be >= 1, got 0", "Pass stride=1 to keep every position."))
    conv: stride must be >= 1, got 0
      Pass stride=1 to keep every position.
    """
    return "\n  ".join([f"{where}: {what}", *details])
