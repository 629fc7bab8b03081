"""A matrix as a product of two smaller ones: truncated singular values, or a dictionary and sparse codes.

Both work in double precision with the machine's linear algebra, whose last bits may differ from one machine
to the next; so may the factors.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["encode_sparse", "learn_dictionary", "rank_for_energy", "singular_directions", "truncated"]

_BLOCK_ROWS: Final = 1 << 12
_RIDGE: Final = 1e-9

F64 = NDArray[np.float64]
F32 = NDArray[np.float32]


def singular_directions(matrix: F32) -> tuple[F64, F64]:
    """Squared singular values in descending order, and the directions that they belong to.

    From the eigenvectors of the product of the matrix with itself: exact enough for numbers of single
    precision, and in memory that grows with the shorter side alone.

    Parameters
    ----------
    matrix : float32 array, shape (m, n) with n at most m

    Returns
    -------
    float64 array, shape (n,)
    float64 array, shape (n, n)
        A direction in each column.
    """
    gram = np.zeros((matrix.shape[1], matrix.shape[1]))
    for start in range(0, len(matrix), _BLOCK_ROWS):
        block = matrix[start : start + _BLOCK_ROWS].astype(np.float64)
        gram += block.T @ block
    squares, directions = np.linalg.eigh(gram)
    return np.maximum(squares[::-1], 0), directions[:, ::-1]


def rank_for_energy(squares: F64, energy: float) -> int:
    """The lowest rank that keeps a share of the sum of squared singular values; 1 at least."""
    reached = np.cumsum(squares)
    return min(int(np.searchsorted(reached, energy * reached[-1])) + 1, len(squares))


def truncated(matrix: F32, squares: F64, directions: F64, rank: int) -> tuple[F32, F32]:
    """The nearest product of a rank (Eckart and Young 1936), its scale shared evenly by the factors.

    Returns
    -------
    float32 array, shape (m, rank)
    float32 array, shape (rank, n)
    """
    kept = directions[:, :rank]
    roots = np.sqrt(np.sqrt(np.maximum(squares[:rank], np.finfo(np.float64).tiny)))
    left = np.empty((len(matrix), rank), np.float32)
    for start in range(0, len(matrix), _BLOCK_ROWS):
        block = matrix[start : start + _BLOCK_ROWS].astype(np.float64)
        left[start : start + _BLOCK_ROWS] = block @ kept / roots
    return left, (kept * roots).T.astype(np.float32)


def learn_dictionary(signals: F32, n_atoms: int, n_nonzero: int, steps: int, seed: int) -> F64:
    """Atoms such that few of them add up to each signal.

    The method of optimal directions (Engan et al. 1999): in turns, signals are coded with the atoms, and the
    atoms become those of least squared error for these codes. One that no signal uses is replaced by the
    signal that is coded worst.

    Parameters
    ----------
    signals : float32 array, shape (n, d)
    n_atoms, n_nonzero, steps, seed : int

    Returns
    -------
    float64 array, shape (n_atoms, d)
        Each of length 1.
    """
    rng = np.random.default_rng(seed)
    exact = signals.astype(np.float64)
    lengths = np.linalg.norm(exact, axis=1)
    used = np.flatnonzero(lengths)
    drawn = rng.choice(used, n_atoms, replace=len(used) < n_atoms)
    atoms: F64 = exact[drawn] / lengths[drawn, None]
    for _ in range(steps):
        codes = encode_sparse(signals, atoms, n_nonzero).astype(np.float64)
        gram = codes.T @ codes
        ridge = _RIDGE * max(float(np.trace(gram)) / n_atoms, np.finfo(np.float64).tiny)
        atoms = np.asarray(np.linalg.solve(gram + ridge * np.eye(n_atoms), codes.T @ exact), np.float64)
        worst = np.argsort(((exact - codes @ atoms) ** 2).sum(axis=1))[::-1]
        unused = np.flatnonzero(~codes.any(axis=0))
        atoms[unused] = exact[np.resize(worst, len(unused))]
        lengths = np.linalg.norm(atoms, axis=1)
        atoms = np.where(lengths[:, None] > 0, atoms / np.maximum(lengths, 1e-300)[:, None], atoms)
    return atoms


def encode_sparse(signals: F32, atoms: F64, n_nonzero: int) -> F32:
    """Code each signal with few atoms: orthogonal matching pursuit (Pati, Rezaiifar, Krishnaprasad 1993).

    Parameters
    ----------
    signals : float32 array, shape (n, d)
    atoms : float64 array, shape (k, d)
        Each of length 1, or 0.
    n_nonzero : int
        At most k.

    Returns
    -------
    float32 array, shape (n, k)
        At most ``n_nonzero`` of each row are not zero.
    """
    codes = np.zeros((len(signals), len(atoms)), np.float32)
    gram = atoms @ atoms.T
    for start in range(0, len(signals), _BLOCK_ROWS):
        block = signals[start : start + _BLOCK_ROWS].astype(np.float64)
        codes[start : start + _BLOCK_ROWS] = _pursued(block @ atoms.T, gram, n_nonzero)
    return codes


def _pursued(correlation: F64, gram: F64, n_nonzero: int) -> F64:
    """Codes from the correlations of signals and atoms, and of atoms with each other."""
    n, k = correlation.shape
    rows = np.arange(n)
    chosen = np.empty((n, 0), np.intp)
    left: F64 = correlation.copy()
    values: F64 = np.zeros((n, 0))
    is_free = np.ones((n, k), bool)
    for _ in range(n_nonzero):
        best = np.where(is_free, np.abs(left), -1).argmax(axis=1)
        is_free[rows, best] = False
        chosen = np.concatenate([chosen, best[:, None]], axis=1)
        among = gram[chosen[:, :, None], chosen[:, None, :]] + _RIDGE * np.eye(chosen.shape[1])
        wanted = np.take_along_axis(correlation, chosen, axis=1)[:, :, None]
        values = np.asarray(np.linalg.solve(among, wanted)[:, :, 0], np.float64)
        left = correlation - (values[:, None, :] @ gram[chosen])[:, 0, :]
    codes = np.zeros((n, k))
    np.put_along_axis(codes, chosen, values, axis=1)
    return codes
