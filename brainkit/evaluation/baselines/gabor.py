"""Ridge regression from the local energy of a Gabor pyramid, the classical model of early visual cortex.

Kay, Naselaris, Prenger & Gallant (2008), Nature 452: quadrature pairs of Gabor filters at several scales and
orientations; the energy of a pair is the sum of the squares of its two responses. Here filters are Gaussians in the
frequency domain, on one side of the origin: the real and imaginary part of a response are the quadrature pair. The root
of the energy is averaged over the cells of a grid, which is finer for finer filters.
"""

from __future__ import annotations

import functools

import numpy as np

from brainkit.evaluation.baselines.pixels import image_ridge, read_image
from brainkit.evaluation.baselines.problem import Problem, Result

SIDE = 128  # pixels
MARGIN = 32  # pixels that are mirrored at the border, since filters wrap around
CYCLES = (2, 4, 8, 16, 32)  # per image
ORIENTATIONS = 8
BANDWIDTH = 1.0  # octaves, between the half-maxima along the filter's direction
GRID = 16  # the finest grid of cells
_LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)


def gabor(problem: Problem) -> Result:
    """Ridge regression from 8 orientations at 5 scales, of 2 to 32 cycles per image."""
    count = ORIENTATIONS * sum(min(GRID, 2 * cycles) ** 2 for cycles in CYCLES)
    return image_ridge(problem, lambda path: gabor_energy(read_image(path, SIDE) @ _LUMINANCE), count)


def gabor_energy(luminance: np.ndarray) -> np.ndarray:
    """The pyramid of one image.

    Parameters
    ----------
    luminance : array of shape (128, 128)

    Returns
    -------
    array of shape (40, 256), float32
        For each scale and orientation, the root of the energy in each cell of a grid of 16 x 16; scales of fewer than 8
        cycles have coarser cells (of 2 per cycle), whose values are repeated.
    """
    padded = np.pad(luminance - luminance.mean(), MARGIN, mode="reflect")
    spectrum = np.fft.fft2(padded)
    rows = []
    for cycles, filters in zip(CYCLES, _filters(), strict=True):
        responses = np.fft.ifft2(spectrum * filters)[:, MARGIN:-MARGIN, MARGIN:-MARGIN]
        cells = min(GRID, 2 * cycles)
        pooled = np.abs(responses).reshape(ORIENTATIONS, cells, SIDE // cells, cells, SIDE // cells).mean((2, 4))
        repeat = GRID // cells
        rows.append(pooled.repeat(repeat, 1).repeat(repeat, 2).reshape(ORIENTATIONS, -1))
    return np.concatenate(rows).astype(np.float32)


@functools.cache
def _filters() -> np.ndarray:
    """Filters in the frequency domain, (scales, orientations, padded side, padded side)."""
    side = SIDE + 2 * MARGIN
    frequency = np.fft.fftfreq(side) * SIDE  # cycles per image
    y, x = np.meshgrid(frequency, frequency, indexing="ij")
    to_sd = 1 / np.sqrt(2 * np.log(2))  # of half the width at half maximum
    octaves = (2**BANDWIDTH - 1) / (2**BANDWIDTH + 1)
    filters = np.zeros((len(CYCLES), ORIENTATIONS, side, side))
    for scale, cycles in enumerate(CYCLES):
        along, across = cycles * octaves * to_sd, cycles * np.tan(np.pi / (2 * ORIENTATIONS)) * to_sd
        for orientation in range(ORIENTATIONS):
            angle = np.pi * orientation / ORIENTATIONS
            u, v = x * np.cos(angle) + y * np.sin(angle), -x * np.sin(angle) + y * np.cos(angle)
            filters[scale, orientation] = np.exp(-(((u - cycles) / along) ** 2 + (v / across) ** 2) / 2)
    filters[:, :, 0, 0] = 0  # no response to the mean
    return filters
