"""Datasets as arrays: the packaged MNIST, a folder of IDX files, or any TFDS image-classification set."""

import dataclasses
import gzip
import hashlib
import importlib.util
import os
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bsgap import config

# MD5 of the decompressed files of the packaged MNIST, equal to the originals'.
MNIST = Path(__file__).parent / 'mnist'
MNIST_MD5 = {
    'train-images-idx3-ubyte': '6bbc9ace898e44ae57da46a324031adb',
    'train-labels-idx1-ubyte': 'a25bea736e30d166cdddb491f175f624',
    't10k-images-idx3-ubyte': '2646ac647ad5339dbf082846283269ea',
    't10k-labels-idx1-ubyte': '27ae3e4e09519cfbb04c329615203637',
}


class Split(NamedTuple):
    """Examples: `images_NxHxWxC` uint8 from 0 to 255, `labels_N` int32 from 0 to the number of classes − 1."""

    images_NxHxWxC: Any
    labels_N: Any


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


def title(dataset: str) -> str:
    """What a reader knows a dataset by: of `idx:FOLDER` the folder's own name."""
    kind, _, where = dataset.partition(':')
    return Path(where).resolve().name if kind == 'idx' else where or dataset


def load(settings: config.Data, variants: Iterable[config.Variant]) -> dict[config.Variant, Dataset]:
    """Reads the dataset that `settings` describe, once for each variant of its training examples.

    Raises:
      UserError: the dataset is unknown, its files are missing or damaged, or it has too few examples for `settings`.
    """
    kind, _, where = settings.dataset.partition(':')
    if settings.dataset == 'mnist':
        train, test = _read_idx_folder(MNIST, MNIST_MD5)
    elif kind == 'idx' and where:
        train, test = _read_idx_folder(Path(os.path.expanduser(where)), {})  # noqa: PTH111 (fails for an unknown user)
    elif kind == 'tfds' and where:
        train, test = _read_tfds(where)
    else:
        raise config.UserError(
            f'config.dataset: {settings.dataset!r} is not known; it must be mnist, idx:FOLDER or tfds:NAME'
        )
    if train.images_NxHxWxC.shape[1:] != test.images_NxHxWxC.shape[1:]:
        raise config.UserError(
            f'config.dataset: {settings.dataset!r}: training images are {train.images_NxHxWxC.shape[1:]}'
            f' and test images {test.images_NxHxWxC.shape[1:]}; they must have one shape'
        )
    if not train.images_NxHxWxC.size or min(train.labels_N.min(), test.labels_N.min()) < 0:
        raise config.UserError(
            f'config.dataset: {settings.dataset!r}: images must have pixels and labels be at least 0'
        )
    classes = int(max(train.labels_N.max(), test.labels_N.max())) + 1
    datasets = {}
    divided: dict[int | None, dict[str, Split]] = {}
    for variant in dict.fromkeys(variants):
        if variant.subset not in divided:
            divided[variant.subset] = _divide(train, settings, variant.subset)
        splits = {**divided[variant.subset], 'test': test}
        splits['train'] = _noisy(splits['train'], classes, variant.label_noise, settings.data_seed)
        datasets[variant] = Dataset(splits, classes, *_constants(splits['train'].images_NxHxWxC, settings))
    return datasets


def _divide(pool: Split, settings: config.Data, subset: int | None) -> dict[str, Split]:
    """Shuffles the training split, holds out its last part for validation and takes the first part for training."""
    if subset is None and not settings.validation:
        return {'train': pool}
    total = len(pool.labels_N)
    held_out = round(settings.validation * total)
    train = total - held_out if subset is None else subset
    if settings.validation and not 0 < held_out < total:
        raise config.UserError(
            f'config.validation: {settings.validation} is {held_out} of {total} examples; it must leave some'
        )
    if train > total - held_out:
        raise config.UserError(
            f'config.subset: {train} is not allowed; it must be at most {total - held_out},'
            ' the training examples that are not held out'
        )
    order_N = np.random.default_rng(settings.data_seed).permutation(total)
    parts = {'train': order_N[:train]}
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
        if len(given) not in (0, 1, channels):
            raise config.UserError(
                f'config.{field}: {given} is not allowed; the images have {channels} channels, so give 1 or {channels}'
            )
    # Counting the 256 values is exact, and needs no floating-point copy of the images.
    share_Cx256 = np.stack([np.bincount(images_NxHxWxC[..., c].ravel(), minlength=256) for c in range(channels)]) / (
        images_NxHxWxC.size / channels
    )
    value_256 = np.arange(256) / 255
    mean_C = share_Cx256 @ value_256
    std_C = np.sqrt(share_Cx256 @ value_256**2 - mean_C**2)
    std_C = np.where(std_C > 0, std_C, 1.0)  # a constant channel is only centred
    return tuple(
        np.broadcast_to(np.asarray(given or measured, np.float32), channels)
        for given, measured in ((settings.mean, mean_C.tolist()), (settings.std, std_C.tolist()))
    )  # type: ignore[return-value]


def _read_idx_folder(folder: Path, md5: dict[str, str]) -> tuple[Split, Split]:
    """Reads the training and the test split of a folder of IDX files, and compares the checksums that are known."""
    if not folder.is_dir():
        raise config.UserError(f'config.dataset: idx:{folder} is not a folder')
    splits = []
    for names in (('train',), ('t10k', 'test')):
        paths = [_find_idx(folder, names, what) for what in ('images-idx', 'labels-idx')]
        images, labels = (_read_idx(path, md5.get(path.stem)) for path in paths)
        if images.ndim not in (3, 4) or labels.ndim != 1:
            raise config.UserError(
                f'config.dataset: {paths[0]}: it has shape {images.shape} and its labels {labels.shape};'
                ' they must be [N, H, W] or [N, H, W, C], and [N]'
            )
        if len(images) != len(labels) or not len(labels):
            raise config.UserError(
                f'config.dataset: {paths[0]} has {len(images)} images and {paths[1]} {len(labels)} labels;'
                ' the counts must agree and be at least 1'
            )
        splits.append(Split(images if images.ndim == 4 else images[..., None], labels.astype(np.int32)))
    return splits[0], splits[1]


def _find_idx(folder: Path, names: tuple[str, ...], what: str) -> Path:
    """The one file of `folder` for a split; EMNIST puts the name of its variant in front."""
    found = sorted(path for name in names for path in folder.glob(f'*{name}-{what}[134]-ubyte*'))
    if len({path.name.removesuffix('.gz') for path in found}) != 1:
        listed = ', '.join(path.name for path in found) or 'none'
        pattern = ' or '.join(f'*{name}-{what}…-ubyte[.gz]' for name in names)
        raise config.UserError(f'config.dataset: idx:{folder} must hold exactly one file {pattern}; found: {listed}')
    return found[0]


def _read_idx(path: Path, md5: str | None) -> np.ndarray:
    """Reads one IDX file of unsigned bytes, plain or gzipped (yann.lecun.com/exdb/mnist describes the format)."""
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == '.gz' else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise config.UserError(f'config.dataset: {path} cannot be read: {error}') from error
    # Magic number: two zero bytes, the type (8: unsigned byte) and the number of dimensions.
    if len(content) < 4 or content[:3] != b'\x00\x00\x08' or not content[3]:
        raise config.UserError(f'config.dataset: {path} is no IDX file of bytes: it starts with {content[:4].hex()!r}')
    header = 4 + 4 * content[3]
    if len(content) < header:
        raise config.UserError(
            f'config.dataset: {path} is truncated: {len(content)} bytes, its header alone has {header}'
        )
    shape = struct.unpack(f'>{content[3]}I', content[4:header])
    body = np.frombuffer(content, np.uint8, offset=header)
    if body.size != np.prod(shape, dtype=object):
        raise config.UserError(
            f'config.dataset: {path} is truncated or too long: its header says {shape}, it holds {body.size} bytes'
        )
    if md5 and hashlib.md5(content, usedforsecurity=False).hexdigest() != md5:
        raise config.UserError(f'config.dataset: {path} is damaged: its MD5 is not {md5}; install bsgap again')
    return body.reshape(shape)


def _read_tfds(name: str) -> tuple[Split, Split]:
    """Reads a TFDS set through its decoded copy, which is made on first use beside the prepared set."""
    import tensorflow_datasets as tfds  # 1.4 s, so only where it is needed
    from tensorflow_datasets.core.download import downloader

    downloader.MAX_RETRIES = 1  # the default retries for 200 s when there is no network
    try:
        builder = tfds.builder(name, file_format='array_record')
        copy = Path(os.fspath(builder.data_dir)) / 'bsgap-decoded.npz'
        if not copy.is_file():
            builder.download_and_prepare()
            _decode_tfds(name, builder, copy)
        with np.load(copy, allow_pickle=False) as arrays:
            train, test = (Split(arrays[f'{split}_images'], arrays[f'{split}_labels']) for split in ('train', 'test'))
    except config.UserError:
        raise
    except Exception as error:  # whatever TFDS meets on its way, the user needs the cause and the way out
        cause: BaseException = error
        while (deeper := cause.__cause__ or cause.__context__) is not None:
            cause = deeper
        reason = (str(cause).strip().splitlines() or [type(cause).__name__])[0]
        tensorflow = importlib.util.find_spec('tensorflow') is not None
        needs = '' if tensorflow else " most sets need TensorFlow to be prepared (pip install 'bsgap[tf]');"
        raise config.UserError(
            f'config.dataset: tfds:{name} cannot be read or prepared: {reason};{needs} prepare it, in the format'
            f' array_record, where there is a network and copy the folder here, or use idx:FOLDER'
        ) from error
    return train, test


def _decode_tfds(name: str, builder: Any, copy: Path) -> None:
    """Writes the splits train and test of a prepared TFDS set as plain arrays."""
    features, splits = builder.info.features, builder.info.splits
    if not {'image', 'label'} <= set(features) or not {'train', 'test'} <= set(splits):
        raise config.UserError(
            f'config.dataset: tfds:{name} has features {", ".join(features)} and splits {", ".join(splits)};'
            ' it must have image and label, train and test'
        )
    arrays: dict[str, np.ndarray] = {}
    for split in ('train', 'test'):
        source = builder.as_data_source(split=split)
        examples = source.__getitems__(range(len(source)))
        shapes = {example['image'].shape for example in examples}
        if len(shapes) != 1 or examples[0]['image'].dtype != np.uint8:
            raise config.UserError(f'config.dataset: tfds:{name} must have uint8 images of one size, not {len(shapes)}')
        arrays[f'{split}_images'] = np.stack([example['image'] for example in examples])
        arrays[f'{split}_labels'] = np.asarray([example['label'] for example in examples], np.int32)
    part = copy.with_suffix(f'.{os.getpid()}.npz')
    np.savez(part, allow_pickle=False, **arrays)
    part.replace(copy)  # so that a killed process leaves no half of it
