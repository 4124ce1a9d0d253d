"""What was chosen for a convolution, and why."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Choice"]


class Choice(NamedTuple):
    """A method and the reason it was taken."""

    method: str
    because: str
