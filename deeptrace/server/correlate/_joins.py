"""Joins of rows by key. Vectorised; the number of pairs that one key can make is bounded."""

import numpy as np
import numpy.typing as npt

from deeptrace.server.correlate import Rows

MAX_CANDIDATES = 8  # rows on the other side with one key; more is no evidence, whatever else is known


def candidates(left: npt.NDArray[np.uint64], right: npt.NDArray[np.uint64]) -> tuple[Rows, Rows, npt.NDArray[np.bool_]]:
    """All pairs (i, j) with left[i] == right[j], and which of left were given up for too many candidates."""
    order = np.argsort(right, kind="stable")
    ordered = right[order]
    first = np.searchsorted(ordered, left, "left")
    counts = np.searchsorted(ordered, left, "right") - first
    given_up = counts > MAX_CANDIDATES
    counts = np.where(given_up, 0, counts)
    i = np.repeat(np.arange(len(left)), counts)
    ends = np.cumsum(counts)
    within = np.arange(len(i)) - np.repeat(ends - counts, counts)
    return i, order[np.repeat(first, counts) + within], given_up


def unique_pairs(i: Rows, j: Rows) -> npt.NDArray[np.bool_]:
    """Which of the pairs (i, j) are the only one of both their members."""
    if len(i) == 0:
        return np.zeros(0, bool)
    alone: npt.NDArray[np.bool_] = (np.bincount(i)[i] == 1) & (np.bincount(j)[j] == 1)
    return alone


def distinct(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The values once each, ascending. By sorting: numpy's hashing unique() took 40 times as long on half a million."""
    ordered = np.sort(values)
    first = np.ones(len(ordered), bool)
    first[1:] = ordered[1:] != ordered[:-1]
    return ordered[first]


def rows_but(n: int, some: list[Rows], others: list[Rows]) -> Rows:
    """The rows (of n) that stand in `some` and not in `others`."""
    mask = np.zeros(n, bool)
    for rows in some:
        mask[rows] = True
    for rows in others:
        mask[rows] = False
    return np.flatnonzero(mask)
