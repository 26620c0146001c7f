"""Folders of IDX files, the packaged MNIST among them; damaged files are named."""

import gzip
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest

from bsgap import config, data
from bsgap.data import Dataset, Split, idx
from bsgap.errors import UserError


def write_idx(path: Path, array: np.ndarray, magic: bytes = b'\x00\x00\x08') -> None:
    content = magic + struct.pack(f'>B{array.ndim}I', array.ndim, *array.shape) + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == '.gz' else content)


def load(folder: Path) -> Dataset:
    training_set = config.TrainingSet(0, 0.0)
    return data.load(config.Data(f'idx:{folder}', 0.0, (), ()), [training_set])[training_set]


def idx_folder(folder: Path, suffix: str = '', shape: tuple[int, ...] = (4, 5), prefix: str = '') -> Split:
    """A set of 20 + 10 random images; returns the training split."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    splits = []
    for name, n in (('train', 20), ('t10k', 10)):
        images, labels = rng.integers(0, 256, (n, *shape)), rng.integers(0, 3, n)
        write_idx(folder / f'{prefix}{name}-images-idx{1 + len(shape)}-ubyte{suffix}', images)
        write_idx(folder / f'{prefix}{name}-labels-idx1-ubyte{suffix}', labels)
        splits.append(Split(images, labels))
    return splits[0]


def test_packaged_mnist_that_is_damaged_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(idx.MNIST, tmp_path / 'mnist')
    labels = tmp_path / 'mnist' / 't10k-labels-idx1-ubyte.gz'
    content = bytearray(gzip.decompress(labels.read_bytes()))
    content[100] ^= 1
    labels.write_bytes(gzip.compress(bytes(content)))
    monkeypatch.setattr(idx, 'MNIST', tmp_path / 'mnist')
    with pytest.raises(UserError, match=r't10k-labels-idx1-ubyte.gz is damaged: its MD5'):
        idx.read(idx.MNIST, config.Data('mnist', 0.0))


@pytest.mark.parametrize(
    ('suffix', 'shape', 'prefix'), [('', (4, 5), ''), ('.gz', (4, 5, 3), ''), ('.gz', (4, 5), 'emnist-x-')]
)
def test_folders(tmp_path: Path, suffix: str, shape: tuple[int, ...], prefix: str) -> None:
    train = idx_folder(tmp_path, suffix, shape, prefix)
    loaded = load(tmp_path)
    np.testing.assert_array_equal(loaded.train.examples_N, train.examples_N.reshape(20, 4, 5, -1))
    np.testing.assert_array_equal(loaded.train.labels_N, train.labels_N)
    pixels = train.examples_N.reshape(20 * 4 * 5, -1) / 255
    np.testing.assert_allclose(loaded.mean_C, pixels.mean(0), rtol=1e-6)
    np.testing.assert_allclose(loaded.std_C, pixels.std(0), rtol=1e-5)


def damage(folder: Path, how: str) -> None:
    images, labels = folder / 'train-images-idx3-ubyte', folder / 'train-labels-idx1-ubyte'
    match how:
        case 'truncated':
            images.write_bytes(images.read_bytes()[:-1])
        case 'header':
            images.write_bytes(images.read_bytes()[:6])
        case 'magic':
            images.write_bytes(b'PK' + images.read_bytes()[2:])
        case 'counts':
            write_idx(labels, np.zeros(19))
        case 'cut gzip':
            images.with_suffix('.gz').write_bytes(gzip.compress(images.read_bytes())[:-9])
            images.unlink()
        case 'missing':
            labels.unlink()
        case 'two':
            write_idx(folder / 'train-labels.idx1-ubyte', np.zeros(20))
        case 'empty':
            images.write_bytes(b'')
        case 'other size':
            write_idx(folder / 't10k-images-idx3-ubyte', np.zeros((10, 3, 3)))
        case 'swapped':
            shutil.copy(labels, images)


@pytest.mark.parametrize(
    ('how', 'says'),
    [
        ('truncated', 'is truncated or too long: its header says'),
        ('header', 'is truncated: 6 bytes'),
        ('magic', "is no IDX file: it starts with '504b0803'"),
        ('counts', 'has 20 images and'),
        ('cut gzip', 'cannot be read'),
        ('missing', 'must hold exactly one file'),
        ('two', 'must hold exactly one file'),
        ('empty', 'is no IDX file'),
        ('other size', 'they must be alike'),
        ('swapped', 'it has shape (20,)'),
    ],
)
def test_wrong_files_are_named(tmp_path: Path, how: str, says: str) -> None:
    idx_folder(tmp_path)
    damage(tmp_path, how)
    with pytest.raises(UserError) as error:
        load(tmp_path)
    assert str(error.value).startswith('config.dataset: ')
    assert says in str(error.value)
    assert '\n' not in str(error.value)


def typed(path: Path, array: np.ndarray, kind: int) -> None:
    header = struct.pack(f'>HBB{array.ndim}I', 0, kind, array.ndim, *array.shape)
    path.write_bytes(header + array.astype(idx.TYPES[kind]).tobytes())


@pytest.mark.parametrize('kind', [8, 9, 11, 12, 13, 14])
def test_every_type_of_idx_and_flat_images(tmp_path: Path, kind: int) -> None:
    rng = np.random.default_rng(0)
    for name in ('train', 'test'):
        values = rng.integers(0, 100, (12, 5)) + (0.5 if kind > 12 else 0)
        typed(tmp_path / f'{name}-images-idx2-any', values, kind)
        write_idx(tmp_path / f'{name}-labels-idx1-ubyte', np.arange(12) % 2)
        if name == 'train':
            train = values
    found = load(tmp_path)
    np.testing.assert_array_equal(found.train.examples_N, train)
    assert found.train.examples_N.dtype == {8: np.uint8, 13: np.float32, 14: np.float32}.get(kind, np.int32)


def test_names_and_places_in_which_sets_come(tmp_path: Path) -> None:
    """Dots, torchvision's folders, a gzip file without its ending, QMNIST's labels, and EMNIST's many in a folder."""
    train = idx_folder(tmp_path / 'plain')
    wanted = train.labels_N.tolist()
    dotted = tmp_path / 'dotted'
    dotted.mkdir()
    for path in (tmp_path / 'plain').iterdir():
        (dotted / path.name.replace('-idx', '.idx')).write_bytes(gzip.compress(path.read_bytes()))
    torchvision = tmp_path / 'torchvision'
    shutil.copytree(tmp_path / 'plain', torchvision / 'FashionMNIST' / 'raw')
    qmnist = tmp_path / 'qmnist'
    qmnist.mkdir()
    for split, file in (('train', 'train'), ('test', 't10k')):
        images, labels = (idx._read_file(tmp_path / 'plain' / f'{file}-{what}-ubyte', None) for what in WHAT)
        write_idx(qmnist / f'qmnist-{split}-images-idx3-ubyte', images)
        typed(qmnist / f'qmnist-{split}-labels-idx2-int', np.stack([labels, np.full(len(labels), 9)], 1), 12)
    for folder in (dotted, torchvision, torchvision / 'FashionMNIST', qmnist):
        assert load(folder).train.labels_N.tolist() == wanted, folder
    assert load(torchvision).notes == (f'its files are those in {torchvision}/FashionMNIST/raw',)
    several = tmp_path / 'several'
    for name in ('emnist-letters-', 'emnist-digits-'):
        idx_folder(several, prefix=name)
    with pytest.raises(UserError, match=f'holds several sets; give one of {several}/emnist-digits, {several}/emnist-l'):
        load(several)
    assert load(several / 'emnist-letters').train.labels_N.tolist() == wanted
    with pytest.raises(UserError, match='is not a folder, and no files begin with emnist-mnist'):
        load(several / 'emnist-mnist')


WHAT = 'images-idx3', 'labels-idx1'


def test_files_that_only_look_alike_are_left_alone(tmp_path: Path) -> None:
    """Checksums, half downloads, copies, what a Mac adds, and a folder."""
    train = idx_folder(tmp_path)
    for stray in ('train-images-idx3-ubyte.gz.md5', 'train-images-idx3-ubyte.part', '._train-images-idx3-ubyte'):
        (tmp_path / stray).write_text('no data')
    (tmp_path / 'train-labels-idx1-ubyte (1)').write_text('no data')
    (tmp_path / 'old-train-labels-idx1-ubyte').mkdir()
    np.testing.assert_array_equal(load(tmp_path).train.labels_N, train.labels_N)


def test_a_dataset_is_known_by_its_content(tmp_path: Path) -> None:
    """By every pixel and label of every split, and by nothing else."""
    idx_folder(tmp_path / 'one')
    idx_folder(tmp_path / 'other', suffix='.gz')
    known = load(tmp_path / 'one').sha256
    assert load(tmp_path / 'other').sha256 == known
    for path in sorted((tmp_path / 'one').iterdir()):
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([(content[-1] + 1) % 3]))
        assert load(tmp_path / 'one').sha256 != known
        path.write_bytes(content)


def test_the_most_frequent_class_of_training(tmp_path: Path) -> None:
    """By hand: 2 of 4 training labels are 1, and 1 of 3 test labels."""
    for name, labels in (('train', [0, 1, 1, 2]), ('t10k', [0, 1, 2])):
        write_idx(tmp_path / f'{name}-images-idx3-ubyte', np.zeros((len(labels), 2, 2)))
        write_idx(tmp_path / f'{name}-labels-idx1-ubyte', np.array(labels))
    assert load(tmp_path).baseline == {'train': 0.5, 'test': 1 / 3}
