"""A dataset as a study sees it: which examples are for training, validation and test, and how to scale them."""

import dataclasses
import functools
import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from bsgap import config
from bsgap.config.checks import require
from bsgap.data import idx, tfds
from bsgap.data.examples import Split
from bsgap.errors import UserError


@dataclasses.dataclass(frozen=True)
class Dataset:
    """What a run is trained and evaluated on. `splits`, in order: train, validation if held out, test."""

    splits: dict[str, Split]
    classes: int
    mean_C: np.ndarray  # float32, of the pixels on a scale from 0 to 1
    std_C: np.ndarray

    @property
    def train(self) -> Split:
        return self.splits['train']

    @property
    def n(self) -> int:
        """The number of training examples."""
        return len(self.train.labels_N)

    @functools.cached_property
    def sha256(self) -> str:
        """Of all examples and labels as they are used."""
        digest = hashlib.sha256()
        for name, array in ((name, array) for name, split in self.splits.items() for array in split):
            digest.update(f'{name} {array.dtype} {array.shape} '.encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    @functools.cached_property
    def most_frequent(self) -> dict[str, float]:
        """The accuracy, by split, of always answering with the class that most training examples have."""
        answer = np.bincount(self.train.labels_N).argmax()
        return {name: float((split.labels_N == answer).mean()) for name, split in self.splits.items()}


def title(dataset: str) -> str:
    """What a reader knows a dataset by: of `idx:FOLDER` the folder's own name."""
    kind, _, where = dataset.partition(':')
    return Path(where).resolve().name if kind == 'idx' else where or dataset


def load(settings: config.Data, training_sets: Iterable[config.TrainingSet]) -> dict[config.TrainingSet, Dataset]:
    """Reads the dataset that `settings` describe, once for each variant of its training examples.

    Raises:
      UserError: the dataset is unknown, its files are missing or damaged, or it has too few examples for `settings`.
    """
    kind, _, where = settings.dataset.partition(':')
    if settings.dataset == 'mnist':
        train, test = idx.read(idx.MNIST, idx.MNIST_MD5)
    elif kind == 'idx' and where:
        train, test = idx.read(where)
    elif kind == 'tfds' and where:
        train, test = tfds.read(where)
    else:
        raise UserError(f'config.dataset: {settings.dataset!r} is not known; it must be mnist, idx:FOLDER or tfds:NAME')
    shapes = [split.images_NxHxWxC.shape[1:] for split in (train, test)]
    problem = 'training images are {} and test images {}; they must have one shape'.format(*shapes)
    require(shapes[0] == shapes[1], 'dataset', f'{settings.dataset!r}: {problem}')
    ok = train.images_NxHxWxC.size and min(train.labels_N.min(), test.labels_N.min()) >= 0
    require(ok, 'dataset', f'{settings.dataset!r}: images must have pixels and labels be at least 0')
    classes = int(max(train.labels_N.max(), test.labels_N.max())) + 1
    datasets = {}
    # Once, so that variants share their arrays.
    divide = functools.cache(lambda subset, seed: _divide(train, settings.validation, subset, seed))
    for training_set in dict.fromkeys(training_sets):
        splits = {**divide(training_set.subset, training_set.data_seed), 'test': test}
        splits['train'] = _noisy(splits['train'], classes, training_set.label_noise, training_set.data_seed)
        datasets[training_set] = Dataset(splits, classes, *_constants(splits['train'].images_NxHxWxC, settings))
    return datasets


def _divide(pool: Split, validation: float, subset: int, seed: int) -> dict[str, Split]:
    """Shuffles the training split, holds out its last part for validation and takes the first part for training."""
    if not subset and not validation:
        return {'train': pool}
    total = len(pool.labels_N)
    held_out = round(validation * total)
    ok = not validation or 0 < held_out < total
    require(ok, 'validation', f'{validation} is {held_out} of {total} examples; it must leave some')
    order_N = np.random.default_rng(seed).permutation(total)
    parts = {'train': order_N[: min(subset or total, total - held_out)]}
    if held_out:
        parts['validation'] = order_N[total - held_out :]
    return {name: Split(pool.images_NxHxWxC[part], pool.labels_N[part]) for name, part in parts.items()}


def _noisy(train: Split, classes: int, share: float, seed: int) -> Split:
    """Changes the labels of a share of the examples to another class, each other one as likely (symmetric noise).

    More noise changes the same examples and more; validation and test labels stay as they are.
    """
    if not share:
        return train
    rng = np.random.default_rng((seed, 1))
    n = len(train.labels_N)
    shift_N = np.where(rng.permutation(n) < round(share * n), rng.integers(1, max(classes, 2), n), 0)
    return train._replace(labels_N=((train.labels_N + shift_N) % classes).astype(np.int32))


def _constants(images_NxHxWxC: np.ndarray, settings: config.Data) -> tuple[np.ndarray, np.ndarray]:
    """The normalisation constants, one a channel: those given, else those of the training images."""
    channels = images_NxHxWxC.shape[-1]
    for field, given in (('mean', settings.mean), ('std', settings.std)):
        needs = f'the images have {channels} channels, so give 1 or {channels}'
        require(len(given) in (0, 1, channels), field, f'{given} is not allowed; {needs}')
    # Counting the 256 values is exact, and needs no floating-point copy of the images.
    counts_Cx256 = np.stack([np.bincount(images_NxHxWxC[..., c].ravel(), minlength=256) for c in range(channels)])
    share_Cx256 = counts_Cx256 / (images_NxHxWxC.size / channels)
    value_256 = np.arange(256) / 255
    mean_C = share_Cx256 @ value_256
    std_C = np.sqrt(share_Cx256 @ value_256**2 - mean_C**2)
    std_C = np.where(std_C > 0, std_C, 1.0)  # a constant channel is only centred
    mean, std = (np.asarray(each, np.float32) for each in (settings.mean or mean_C, settings.std or std_C))
    return np.broadcast_to(mean, channels), np.broadcast_to(std, channels)
