"""How the kernel for a TPU cuts the gradient of a dense convolution by its kernel into blocks.

    dw[a, b, i, o] = sum_{n, p, q}  x~[n, s p + d a - lo, s q + d b - lo, i] g[n, p, q, o]

For each tap that is a matrix product over positions, of the image that is read at the tap's place
and of the other, which stays where it is and is turned once. These are x and the cotangent; of a
transposed convolution, whose x is dilated, they are the cotangent, read in steps, and x.
"""

from __future__ import annotations

import dataclasses
import functools
import math

from jaxdil._pallas import layouts, plan_dense
from jaxdil._pallas.axes import axis_of, up
from jaxdil._pallas.plan_1d import is_turned
from jaxdil._pallas.plan_2d import LANES, MEMORY, SUBLANES
from jaxdil._problem import Problem

__all__ = ["Plan", "is_read_in_places", "of_windows", "plan_of", "plans_of", "reason"]

# Positions that a product sums over at the most, if there are more.
STRIP = 2048

# Products of 8 channels by 128 positions by 128 channels that are written out at the most.
MOST_PRODUCTS = 8192


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """One kernel gradient, and its blocks."""

    image: plan_dense.Plan
    """The convolution that reads the one image as the taps do, and gives the other's positions."""
    exchanged: bool
    """Whether the image that is read at each tap's place is the cotangent."""
    outer_first: bool
    """Whether dw is given with outputs before inputs, as it lies in memory."""
    wide: int
    """Channels of a block of the image that stays."""

    @property
    def still(self) -> int:
        """Channels of the image that stays."""
        return self.image.out_channels

    @property
    def steps(self) -> tuple[int, int]:
        """Blocks of its channels, and of images."""
        return -(-self.still // self.wide), self.image.batch // self.image.images

    @property
    def turned(self) -> bool:
        """Whether products give dw the other way round."""
        return self.outer_first == self.exchanged

    @property
    def strip(self) -> tuple[int, int, int]:
        """Images, rows and columns that a product sums over."""
        image = self.image
        whole = image.images, image.rows.outputs, image.pitch
        if math.prod(whole) <= 2 * STRIP:
            return whole
        if image.pitch >= STRIP:
            widths = range(plan_dense.MOST_ROWS, 2 * STRIP + 1, plan_dense.MOST_ROWS)
            return 1, 1, max(width for width in widths if image.pitch % width == 0)
        unit = LANES // math.gcd(image.pitch, LANES)
        return (
            1,
            min(up(max(STRIP // image.pitch, 1), unit), up(image.rows.outputs, unit)),
            image.pitch,
        )

    @property
    def alone(self) -> bool:
        """Whether one product for each tap is all of its sum."""
        image = self.image
        positions = image.images, image.rows.outputs, image.pitch
        return self.steps[1] == 1 and self.strip == positions

    @property
    def height(self) -> int:
        """Rows of each image, whole strips of them."""
        return up(self.image.rows.outputs, self.strip[1])

    @property
    def padded(self) -> tuple[int, ...]:
        """The padded images, with what the last strip reads."""
        starts, images, span, *rest = self.image.image
        return starts, images, max(span, self.image.rows.window(self.height)), *rest

    @property
    def positions(self) -> int:
        """Positions of a block of the image that stays, as it lies turned."""
        return up(self.image.images * self.height * self.image.pitch, LANES)

    @property
    def shape(self) -> tuple[int, int, int]:
        """A block of dw, a tap after the other."""
        pair = self.wide, self.image.channels
        return math.prod(self.image.kernel), *(pair[::-1] if self.turned else pair)

    @property
    def copies(self) -> tuple[int, int, int]:
        """Blocks of each that are on the chip: two, one being copied, if several."""
        blocks, images = self.steps
        return 1 + (images > 1), 1 + (blocks * images > 1), 1 + (blocks > 1)

    @property
    def copied(self) -> tuple[int, int, int]:
        """Bytes of a block of the image that is read in places, of the other and of dw."""
        image = self.image
        x, g, dw = image.itemsizes
        read = image.images * image.rows.size * up(image.columns_given, SUBLANES)
        stays = image.images * math.prod(image.outputs)
        taps, rows, columns = self.shape
        return (
            read * up(image.channels, LANES) * x,
            stays * up(self.wide, LANES) * g,
            taps * up(rows, SUBLANES) * up(columns, LANES) * dw,
        )

    @property
    def moved(self) -> int:
        """Bytes copied to and from the memory of the chip."""
        blocks, images = self.steps
        read, stays, dw = self.copied
        return (blocks * images if images > 1 else 1) * read + blocks * (images * stays + dw)

    @property
    def images_held(self) -> int:
        """Bytes of the padded images."""
        held = 2 if self.image.packed else 4
        return math.prod(self.padded[:-1]) * up(self.padded[-1], LANES) * held

    def others_held(self, times: int) -> int:
        """Bytes of the image that stays, turned, and of so many times the sums."""
        work = self.positions * (LANES * 4 + up(self.wide, SUBLANES) * self.image.itemsizes[0])
        taps, inner = math.prod(self.image.kernel), up(self.image.channels, LANES)
        sums = times * taps * up(self.wide, SUBLANES) * inner * 4
        return work + sums + math.prod(self.image.window) * 4

    @property
    def memory(self) -> int:
        """Bytes in the memory on the chip."""
        work = self.images_held + self.others_held(0 if self.alone else 1)
        return work + sum(n * of for n, of in zip(self.copies, self.copied, strict=True))

    @property
    def lies(self) -> tuple[tuple[bool, int], tuple[bool, int]]:
        """How x and the cotangent lie in memory."""
        moving, still = self.image.lies
        return (still, moving) if self.exchanged else (moving, still)

    @property
    def doubted(self) -> int | None:
        """Columns of a block of dw, if other zeros may be multiplied than those around x.

        They are those of the cotangent, of rows that lie beyond its last, or not all of x's.
        """
        beyond = self.height > self.image.rows.outputs
        taps, _, columns = self.shape
        return columns if self.exchanged or beyond or self.meeting < taps else None

    @property
    def meeting(self) -> int:
        """Taps that meet a sample; the others have no product."""
        (phase,), (side,) = self.image.rows.phases, self.image.columns.phases
        return len(phase.taps) * len(side.taps)

    @property
    def products(self) -> int:
        """Products of 8 channels by 128 positions by 128 channels that are written out."""
        (side,) = self.image.columns.phases
        taps = len(self.image.rows.phases[0].taps) * len(self.image.groups_of(side))
        tiles = -(-self.image.channels // LANES) * -(-self.wide // SUBLANES)
        return taps * tiles * -(-math.prod(self.strip) // LANES)


@functools.lru_cache(maxsize=1024)
def plan_of(problem: Problem) -> Plan | None:
    """The plan of a kernel gradient along one or two axes, or None if none fits."""
    fitting = (p for p in plans_of(problem) if p.memory <= MEMORY and p.products <= MOST_PRODUCTS)
    return next(fitting, None)


def is_read_in_places(problem: Problem, *, either: bool | None = None) -> bool:
    """Whether it is the cotangent, not x, that is read at each tap's place.

    Where both would do, ``either``; if None, that of fewer channels stays.
    """
    if max(problem.input_dilation) > 1:
        return True
    if either is None:
        either = max(problem.stride) == 1 and problem.batch < problem.out_channels
    return either and max(problem.dilation) == 1 and _is_met(problem)


def _is_met(problem: Problem) -> bool:
    """Whether each position of the cotangent meets a sample, so that none goes unseen."""
    axes = zip(problem.size, problem.positions, problem.stride, problem.padding, strict=True)
    return all(max(pads) <= d * (k - 1) and (d <= n or k == 1) for n, k, d, pads in axes)


def plans_of(problem: Problem, *, exchanged: bool | None = None) -> list[Plan]:
    """Ways to cut it into blocks, the best first.

    ``exchanged`` says whether the cotangent is read at each tap's place; if None, see
    `is_read_in_places`.
    """
    if exchanged is None:
        exchanged = is_read_in_places(problem)
    given = plan_dense.as_image(problem)
    # x (C, H, W, N) with the cotangent (P, Q, N, O): taps are the positions.
    sizes = zip(
        given.size,
        given.kernel,
        given.positions,
        given.stride,
        given.dilation,
        given.input_dilation,
        given.padding,
        strict=True,
    )
    axes = [
        axis_of(p, k, n, a, d, 1, d * (k - 1) - lo, 1)
        if exchanged
        else axis_of(n, k, p, s, d, 1, lo, 1)
        for n, p, k, d, s, a, (lo, _) in sizes
    ]
    x, g = (problem.batch, given.size), (problem.out_channels, given.kernel)
    (channels, _), (still, positions) = (g, x) if exchanged else (x, g)
    lengths = [(size[-1], count) for count, size in ((g, x) if exchanged else (x, g))]
    image = plan_dense.Plan(
        batch=problem.channels,
        channels=channels,
        out_channels=still,
        kernel=(given.positions[0], given.positions[1]),
        positions=(positions[0], positions[1]),
        rows=axes[0],
        columns=axes[1],
        turned=False,
        outer_first=False,
        across=(is_turned(*lengths[0]), is_turned(*lengths[1])),
        itemsizes=plan_dense.sizes_of(problem),
        images=1,
        wide=still,
        even=True,
    )
    outer_first = layouts.is_exchanged(problem.batch, problem.out_channels)
    wides = [still] if still <= 4 * LANES or still % LANES else []
    wides += [LANES * n for n in (4, 2, 1) if still % (LANES * n) == 0 and LANES * n < still]
    divisors = [d for d in range(min(image.batch, 32), 0, -1) if image.batch % d == 0]
    return [
        Plan(
            dataclasses.replace(image, images=images, wide=wide),
            exchanged=exchanged,
            outer_first=outer_first,
            wide=wide,
        )
        for images in divisors
        for wide in wides
    ]


def reason(problem: Problem) -> str | None:
    """Why the kernel cannot serve a kernel gradient along one or two axes, or None."""
    if (why := of_windows(problem)) is not None:
        return why
    ways = plans_of(problem)
    if not ways[0].meeting:
        return "no tap meets a sample"
    return None if plan_of(problem) is not None else plan_dense.too_large(ways)


def of_windows(problem: Problem) -> str | None:
    """Why the kernel takes no numbers or windows such as a problem's, or None."""
    if (why := plan_dense.of_numbers(problem)) is not None:
        return why
    apart = max(problem.input_dilation) > 1
    if apart and max(*problem.dilation, *problem.stride) > 1:
        return "a kernel gradient with the input dilated, and a stride or a dilation"
    return None
