"""Arrays from anywhere as splits: what can't be learned from is refused, and what was changed is told."""

from collections.abc import Container

import numpy as np

from bsgap.config import Data
from bsgap.config.checks import require
from bsgap.data.examples import Source, Split

FEW = 8  # names in a sentence
LOST = 0.01  # of a standard deviation, which numbers may lose as they become float32


def splits(source: Source, settings: Data, given: Container[str] = ()) -> tuple[Split, Split, int, tuple[str, ...]]:
    """The training and the test split, the number of classes or targets, and sentences that say what was changed.

    Examples: unsigned bytes stay as they are, and get an axis for their one channel if they are [N, H, W]; numbers
    become float32, other integers int32 tokens. Labels: whole numbers, texts or booleans become 0, 1, … in their
    order. Targets, which are numbers and of a regression or a task of the user's own, become [N, K]: float64, which is
    standardised before it is float32, or float32. Without a test split a share of the training split is held out, the
    same one always; with one, `test_share` may not be among the fields that were `given`.
    """
    dataset = settings.dataset
    without_effect = source.test and 'test_share' in given
    require(not without_effect, 'test_share', 'has no effect: the dataset has a test split of its own')
    of = {'train': source.train} | ({'test': source.test} if source.test else {})
    found, notes = {}, list(source.notes)
    for name, (x, y) in of.items():
        counts = [(*np.shape(array), 0)[0] for array in (x, y)]
        problem = f'the {name} split has {counts[0]} examples and {counts[1]} labels'
        ok = counts[0] == counts[1] > 0
        require(ok, 'dataset', f'{dataset}: {problem}; the counts must agree and be at least 1')
        for what, array in (('examples', x), ('labels', y)):
            masked = f'{dataset}: some of the {name} {what} are masked'
            require(not np.ma.is_masked(array), 'dataset', f'{masked}; fill them, or leave those examples out')
        found[name] = _examples(dataset, name, np.asarray(x)), _labels(settings, name, np.asarray(y))
    if 'test' not in found:
        x_N, y_N = found['train']
        held_out = round(settings.test_share * len(x_N))
        problem = f'{settings.test_share} is {held_out} of {len(x_N)} examples; there is no test split'
        require(0 < held_out < len(x_N), 'test_share', f'{problem}, so it must leave some')
        order_N = np.random.default_rng(0).permutation(len(x_N))
        parts = {'train': order_N[held_out:], 'test': order_N[:held_out]}
        found = {name: (x_N[part], y_N[part]) for name, part in parts.items()}
        notes.append(f'there is no test split: {held_out:,} of {len(x_N):,} examples are held out for it')
    (x_N, y_N), (test_x_N, test_y_N) = found['train'], found['test']
    looks = [f'{array.dtype} {list(array.shape[1:])}' for array in (x_N, test_x_N)]
    problem = f'training examples are {looks[0]} and test examples {looks[1]}; they must be alike'
    require(looks[0] == looks[1], 'dataset', f'{dataset}: {problem}')
    looks = [f'{array.dtype} {list(array.shape[1:])}' for array in (y_N, test_y_N)]
    alike = len({*'biu'} | {y_N.dtype.kind, test_y_N.dtype.kind}) == 3 or y_N.dtype.kind == test_y_N.dtype.kind
    problem = f'training labels are {looks[0]} and test labels {looks[1]}; they must be alike'
    require(alike and y_N.shape[1:] == test_y_N.shape[1:], 'dataset', f'{dataset}: {problem}')
    if y_N.dtype.kind == 'f':
        return Split(x_N, y_N), Split(test_x_N, test_y_N), y_N.shape[1], tuple(notes)
    names, index_N = np.unique(np.concatenate([y_N, test_y_N]), return_inverse=True)
    require(len(names) > 1, 'dataset', f'{dataset} has one class alone, {names[0]}; there must be two')
    index_N = index_N.reshape(-1, *y_N.shape[1:]).astype(np.int32)
    if names.dtype.kind not in 'iu' or (names != np.arange(len(names))).any():
        notes.append(f'its labels {_listed(names)} are the classes 0 to {len(names) - 1}, in this order')
    if absent := _listed(np.setdiff1d(test_y_N, y_N)):
        notes.append(f'no training example has label {absent}, which test examples have')
    train, test = Split(x_N, index_N[: len(x_N)]), Split(test_x_N, index_N[len(x_N) :])
    return train, test, len(names), tuple(notes)


def _examples(dataset: str, name: str, x_N: np.ndarray) -> np.ndarray:
    what = f'{dataset}: the {name} examples are {x_N.dtype} {list(x_N.shape)}'
    require(x_N.dtype.kind in 'biuf', 'dataset', f'{what}; they must be numbers')
    require(x_N.ndim > 1 and x_N.size, 'dataset', f'{what}; they must be [N, …], none of it empty')
    if x_N.dtype == np.uint8:
        return x_N[..., None] if x_N.ndim == 3 else x_N
    if x_N.dtype.kind in 'iu':
        needs = 'with values outside 0 to 2³¹ − 1; whole numbers are tokens, so give floats'
        require(x_N.min() >= 0 and x_N.max() < 2**31, 'dataset', f'{what}, {needs}')
        return x_N.astype(np.int32)
    with np.errstate(over='ignore'):
        exact_N, x_N = x_N, x_N.astype(np.float32)
    wrong_N = ~np.isfinite(x_N).all(axis=tuple(range(1, x_N.ndim)))
    first = f'{wrong_N.sum()} of them, first number {wrong_N.argmax()}, have a value that is NaN, infinite or too large'
    require(not wrong_N.any(), 'dataset', f'{what}; {first} for float32')
    rest = tuple(range(x_N.ndim - 1))
    lost_C, spread_C = np.abs(exact_N - x_N).max(rest), exact_N.std(rest, dtype=np.float64)
    far = np.flatnonzero((exact_N.max(rest) > exact_N.min(rest)) & (lost_C > LOST * spread_C))
    needs = 'float32 does not tell its values apart; subtract its mean'
    require(not len(far), 'dataset', f'{what}; of channel or feature {[*far, 0][0] + 1} {needs}')
    return x_N


def _labels(settings: Data, name: str, y_N: np.ndarray) -> np.ndarray:
    what = f'{settings.dataset}: the {name} labels are {y_N.dtype} {list(y_N.shape)}'
    if settings.task == 'regression' or (settings.task != 'classification' and y_N.dtype.kind == 'f'):
        require(y_N.dtype.kind in 'biuf' and y_N.ndim < 3, 'dataset', f'{what}; targets must be numbers, [N] or [N, K]')
        y_NxK = y_N.reshape(len(y_N), -1).astype(np.float64 if settings.task == 'regression' else np.float32)
        require(np.isfinite(y_NxK).all(), 'dataset', f'{what}, some NaN or infinite')
        return y_NxK
    if y_N.dtype == object and all(isinstance(label, str) for label in y_N.flat):
        y_N = y_N.astype(str)
    y_N = y_N[:, 0] if y_N.ndim == 2 and y_N.shape[1] == 1 else y_N
    needs = 'they must be whole numbers, texts or booleans, or else config.task=regression'
    require(y_N.size and y_N.dtype.kind in 'biuU', 'dataset', f'{what}; {needs}')
    return y_N


def _listed(labels: np.ndarray) -> str:
    more = f', … ({len(labels)} in all)' if len(labels) > FEW else ''
    return ', '.join(map(str, labels[:FEW])) + more
