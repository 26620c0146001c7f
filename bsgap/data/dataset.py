"""A dataset as a study sees it: which examples are for training, validation and test, and how to scale them."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Container, Iterable, Mapping
from pathlib import Path

import numpy as np

from bsgap import config
from bsgap.config.checks import require
from bsgap.data import arrays, function, hugging_face, idx, npz, pictures, scikit_learn, table, tfds
from bsgap.data.examples import Source, Split


@dataclasses.dataclass(frozen=True)
class Dataset:
    """What a run is trained and evaluated on. `splits`, in order: train, validation if held out, test."""

    splits: dict[str, Split]
    outputs: int  # classes, or targets of a regression
    mean_C: np.ndarray  # float32, of bytes on a scale from 0 to 1, and of numbers
    std_C: np.ndarray
    target_mean_K: np.ndarray | None = None  # of a regression, by which its targets are standardised
    target_std_K: np.ndarray | None = None
    task: str = 'classification'
    notes: tuple[str, ...] = ()  # what was changed

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

    @property
    def has_classes(self) -> bool:
        """Whether labels are classes; else they are numbers."""
        return self.train.labels_N.dtype == np.int32

    @property
    def label_shape(self) -> tuple[int, ...]:
        """Of an example's classes; () of numbers."""
        return self.train.labels_N.shape[1:] if self.has_classes else ()

    @functools.cached_property
    def baseline(self) -> dict[str, float]:
        """The score, by split, of always answering with the class that most training examples have, or with their mean
        target; none of a task of the user's own."""
        train_N = self.train.labels_N
        if self.task not in ('classification', 'regression'):
            return {}
        if self.has_classes:
            answer = np.bincount(train_N.ravel()).argmax()
            return {name: float((split.labels_N == answer).mean()) for name, split in self.splits.items()}
        found = {}
        for name, split in self.splits.items():
            of_mean_K = np.square(split.labels_N - train_N.mean(0)).mean(0)
            variance_K = split.labels_N.var(0)
            found[name] = 1 - float((of_mean_K / np.where(variance_K > 0, variance_K, 1)).mean())
        return found


READERS: Mapping[str, Callable[[str, config.Data], Source]] = {
    'csv': table.read,
    'folder': pictures.read,
    'hf': hugging_face.read,
    'idx': idx.read,
    'npz': npz.read,
    'parquet': table.read,
    'sklearn': scikit_learn.read,
    'tfds': tfds.read,
}


def title(dataset: str) -> str:
    """What a reader knows a dataset by: of `idx:FOLDER` the folder's own name, of `npz:FILE` the file's."""
    kind, _, where = dataset.partition(':')
    if kind in READERS:
        return where if kind in ('sklearn', 'tfds') else Path(where).resolve().name
    return dataset


def load(
    settings: config.Data, training_sets: Iterable[config.TrainingSet], given: Container[str] = ()
) -> dict[config.TrainingSet, Dataset]:
    """Reads the dataset that `settings` describe, once for each variant of its training examples.

    Fields that were `given` on the command line must have an effect, also where the files alone decide that.

    Raises:
      UserError: the dataset is unknown, its files are missing or damaged, or it has too few examples for `settings`.
    """
    train, test, outputs, notes = arrays.splits(_source(settings), settings, given)
    datasets = {}
    # Once, so that variants share their arrays.
    divide = functools.cache(lambda subset, seed: _divide(train, settings.validation, subset, seed))
    for training_set in dict.fromkeys(training_sets):
        splits = {**divide(training_set.subset, training_set.data_seed), 'test': test}
        splits['train'] = _noisy(splits['train'], outputs, training_set.label_noise, training_set.data_seed)
        made = Dataset(
            splits, outputs, *_constants(splits['train'].examples_N, settings), task=settings.task, notes=notes
        )
        datasets[training_set] = _standardised(made) if settings.task == 'regression' else made
    return datasets


def _source(settings: config.Data) -> Source:
    dataset = settings.dataset
    kind, _, where = dataset.partition(':')
    if dataset == 'mnist':
        return idx.read(idx.MNIST, settings)
    needs = f'mnist, module:function, or begin with {":, ".join(READERS)}:'
    require(kind and where, 'dataset', f'{dataset!r} is not known; it must be {needs}')
    return READERS[kind](where, settings) if kind in READERS else function.read(dataset)


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
    return {name: Split(pool.examples_N[part], pool.labels_N[part]) for name, part in parts.items()}


def _noisy(train: Split, classes: int, share: float, seed: int) -> Split:
    """Changes the labels of a share of the examples to another class, each other one as likely (symmetric noise).

    More noise changes the same examples and more; validation and test labels stay as they are.
    """
    if not share:
        return train
    one_class = train.labels_N.dtype == np.int32 and train.labels_N.ndim == 1
    require(one_class, 'label_noise', f'{share} is not allowed; it is for one class an example')
    rng = np.random.default_rng((seed, 1))
    n = len(train.labels_N)
    shift_N = np.where(rng.permutation(n) < round(share * n), rng.integers(1, max(classes, 2), n), 0)
    return train._replace(labels_N=((train.labels_N + shift_N) % classes).astype(np.int32))


def _standardised(made: Dataset) -> Dataset:
    """With targets of mean 0 and standard deviation 1 in the training split."""
    targets_NxK = made.train.labels_N  # still float64, as float32 could not tell those apart that are far from 0
    with np.errstate(over='ignore', invalid='ignore'):
        mean_K, std_K = targets_NxK.mean(0), targets_NxK.std(0)
        parts = {name: ((of.labels_N - mean_K) / std_K).astype(np.float32) for name, of in made.splits.items()}
    splits = {name: of._replace(labels_N=parts[name]) for name, of in made.splits.items()}
    ok = (targets_NxK.max(0) > targets_NxK.min(0)).all() & np.isfinite(std_K).all()
    require(ok, 'task', 'regression is not allowed; the targets of training must differ, and not by more than 1e150')
    notes = made.notes
    if not min(part.var(0).min() for part in parts.values()) > 0:
        notes += ('where the targets of a split are all the same, its R² is taken as if their variance was 1',)
    return dataclasses.replace(made, splits=splits, target_mean_K=mean_K, target_std_K=std_K, notes=notes)


def _constants(examples_N: np.ndarray, settings: config.Data) -> tuple[np.ndarray, np.ndarray]:
    """The normalisation constants: those given, else those of the training examples.

    One for each of the last axis: a channel of [N, H, W, C], a feature of [N, F]; one alone for all of [N, A, B], whose
    last axis may be either. Tokens have 0 and 1.
    """
    tokens = examples_N.dtype == np.int32
    channels = 1 if tokens or examples_N.ndim == 3 else examples_N.shape[-1]
    for field, values in (('mean', settings.mean), ('std', settings.std)):
        kept = 'the examples are whole numbers, which stay as they are'
        require(not (values and tokens), field, f'{values} is not allowed; {kept}')
        needs = f'the examples have {channels} channels or features, so give {" or ".join({"1": 0, str(channels): 0})}'
        require(len(values) in (0, 1, channels), field, f'{values} is not allowed; {needs}')
    if tokens:
        return np.zeros(1, np.float32), np.ones(1, np.float32)
    values_PxC = examples_N.reshape(-1, channels)
    if examples_N.dtype == np.uint8:
        # Counting the 256 values is exact, and needs no floating-point copy of the images.
        counts_Cx256 = np.stack([np.bincount(values_PxC[:, c], minlength=256) for c in range(channels)])
        share_Cx256, value_256 = counts_Cx256 / len(values_PxC), np.arange(256) / 255
        mean_C = share_Cx256 @ value_256
        std_C = np.sqrt(share_Cx256 @ value_256**2 - mean_C**2)
    else:
        mean_C, std_C = values_PxC.mean(0, dtype=np.float64), values_PxC.std(0, dtype=np.float64)
    std_C = np.where(std_C > 0, std_C, 1.0)  # a constant channel is only centred
    mean, std = (np.asarray(each, np.float32) for each in (settings.mean or mean_C, settings.std or std_C))
    return np.broadcast_to(mean, channels), np.broadcast_to(std, channels)
