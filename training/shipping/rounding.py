"""Weights to int8, so that what a layer says changes least on the inputs it was seen to get."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Bytes = NDArray[np.int8]

LOWEST, HIGHEST = -64, 63
"""Seven bits: on a CPU without VNNI the sum of two products of uint8 and int8 has to fit int16 (2 x 255 x 64)."""

DAMPING = 0.01
"""Added to the moments' diagonal, as a share of its mean, so that channels hardly ever seen are not trusted."""

BLOCK = 128
"""Channels rounded before the others hear of their errors: only for speed."""


@dataclass(frozen=True, slots=True)
class Rounded:
    """`values` int8 [inputs, outputs] times `scales` float32 [outputs] is about the weight."""

    values: Bytes
    scales: Floats


def rounded(weight: Floats, moments: NDArray[np.float64]) -> Rounded:
    """The weight [inputs, outputs] by GPTQ (arXiv:2210.17323): input channels are rounded in the order of their size,
    and each one's error is made good by those still to come. `moments` [inputs, inputs] is the mean of x x'."""
    scales = _scales(weight)
    order = np.argsort(-np.diag(moments), kind="stable")
    steps = _steps(moments[np.ix_(order, order)])
    left = (weight / scales).astype(np.float64)[order]
    values = np.zeros_like(left)
    for start in range(0, len(left), BLOCK):
        block = slice(start, min(start + BLOCK, len(left)))
        errors = _round_block(left[block], values[block], steps[block, block])
        left[block.stop :] -= steps[block, block.stop :].T @ errors
    back = np.argsort(order, kind="stable")
    return Rounded(values[back].astype(np.int8), scales)


def rounded_rows(table: Floats) -> Rounded:
    """An embedding table [rows, hidden], each row with a scale of its own: `scales` is [rows, 1]."""
    scales = np.maximum(np.abs(table).max(axis=1, keepdims=True) / 127, np.finfo(np.float32).tiny).astype(np.float32)
    return Rounded(np.clip(np.round(table / scales), -127, 127).astype(np.int8), scales)


def _scales(weight: Floats) -> Floats:
    peaks = np.abs(weight).max(axis=0) / HIGHEST
    scales: Floats = np.maximum(peaks, np.finfo(np.float32).tiny).astype(np.float32)
    return scales


def _steps(moments: NDArray[np.float64]) -> NDArray[np.float64]:
    """Upper triangular: how far the channels still to come move for one unit of a channel's error."""
    damped = moments + np.eye(len(moments)) * max(DAMPING * float(np.diag(moments).mean()), 1e-12)
    upper: NDArray[np.float64] = np.linalg.cholesky(np.linalg.inv(damped)).T
    return upper


def _round_block(
    left: NDArray[np.float64], values: NDArray[np.float64], steps: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Fills `values`; returns each channel's error per unit of its step, for the channels behind this block."""
    errors = np.zeros_like(left)
    for channel in range(len(left)):
        values[channel] = np.clip(np.round(left[channel]), LOWEST, HIGHEST)
        errors[channel] = (left[channel] - values[channel]) / steps[channel, channel]
        left[channel + 1 :] -= np.outer(steps[channel, channel + 1 :], errors[channel])
    return errors
