"""Datasets are what their files say, and damaged files are named."""

import gzip
import os
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT, tiny

from bsgap import config, data


def load(dataset: str = 'mnist', subset: int | None = None, label_noise: float = 0.0, **changes: Any) -> data.Dataset:
    variant = config.Variant(subset, label_noise)
    return data.load(config.resolve(tiny(dataset=dataset, **changes)).data, [variant])[variant]


def write_idx(path: Path, array: np.ndarray, magic: bytes = b'\x00\x00\x08') -> None:
    content = magic + struct.pack(f'>B{array.ndim}I', array.ndim, *array.shape) + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == '.gz' else content)


def idx_folder(folder: Path, suffix: str = '', shape: tuple[int, ...] = (4, 5), prefix: str = '') -> data.Split:
    """A set of 20 + 10 random images; returns the training split."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    splits = []
    for name, n in (('train', 20), ('t10k', 10)):
        images, labels = rng.integers(0, 256, (n, *shape)), rng.integers(0, 3, n)
        write_idx(folder / f'{prefix}{name}-images-idx{1 + len(shape)}-ubyte{suffix}', images)
        write_idx(folder / f'{prefix}{name}-labels-idx1-ubyte{suffix}', labels)
        splits.append(data.Split(images, labels))
    return splits[0]


def test_packaged_mnist() -> None:
    mnist = load()
    assert mnist.train.images_NxHxWxC.shape == (60000, 28, 28, 1)
    assert mnist.splits['test'].images_NxHxWxC.shape == (10000, 28, 28, 1)
    assert mnist.classes == 10
    # Known facts of the database: its first labels, its constants, and the number of zeros in the test split.
    assert mnist.train.labels_N[:5].tolist() == [5, 0, 4, 1, 9]
    assert (mnist.splits['test'].labels_N == 0).sum() == 980
    np.testing.assert_allclose((mnist.mean_C[0], mnist.std_C[0]), (0.1307, 0.3081), atol=5e-5)


def test_packaged_mnist_that_is_damaged_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(data.MNIST, tmp_path / 'mnist')
    labels = tmp_path / 'mnist' / 't10k-labels-idx1-ubyte.gz'
    content = bytearray(gzip.decompress(labels.read_bytes()))
    content[100] ^= 1
    labels.write_bytes(gzip.compress(bytes(content)))
    monkeypatch.setattr(data, 'MNIST', tmp_path / 'mnist')
    with pytest.raises(config.UserError, match=r't10k-labels-idx1-ubyte.gz is damaged: its MD5'):
        load()


@pytest.mark.parametrize(
    ('suffix', 'shape', 'prefix'), [('', (4, 5), ''), ('.gz', (4, 5, 3), ''), ('.gz', (4, 5), 'emnist-x-')]
)
def test_idx_folders(tmp_path: Path, suffix: str, shape: tuple[int, ...], prefix: str) -> None:
    train = idx_folder(tmp_path, suffix, shape, prefix)
    loaded = load(f'idx:{tmp_path}')
    np.testing.assert_array_equal(loaded.train.images_NxHxWxC, train.images_NxHxWxC.reshape(20, 4, 5, -1))
    np.testing.assert_array_equal(loaded.train.labels_N, train.labels_N)
    pixels = train.images_NxHxWxC.reshape(20 * 4 * 5, -1) / 255
    np.testing.assert_allclose(loaded.mean_C, pixels.mean(0), rtol=1e-6)
    np.testing.assert_allclose(loaded.std_C, pixels.std(0), rtol=1e-5)


def test_given_constants_are_used() -> None:
    mnist = load(mean=(0.25,), std=(0.5,))
    assert (mnist.mean_C.tolist(), mnist.std_C.tolist()) == ([0.25], [0.5])
    with pytest.raises(config.UserError, match=r'config.mean: .* the images have 1 channels'):
        load(mean=(0.1, 0.2))


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
        case 'gzip':
            images.rename(images.with_suffix('.gz'))
        case 'cut gzip':
            images.with_suffix('.gz').write_bytes(gzip.compress(images.read_bytes())[:-9])
            images.unlink()
        case 'missing':
            labels.unlink()
        case 'two':
            write_idx(folder / 'emnist-train-labels-idx1-ubyte', np.zeros(20))
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
        ('magic', "is no IDX file of bytes: it starts with '504b0803'"),
        ('counts', 'has 20 images and'),
        ('gzip', 'cannot be read: Not a gzipped file'),
        ('cut gzip', 'cannot be read'),
        ('missing', 'must hold exactly one file'),
        ('two', 'must hold exactly one file'),
        ('empty', 'is no IDX file'),
        ('other size', 'they must have one shape'),
        ('swapped', 'it has shape (20,)'),
    ],
)
def test_wrong_idx_files_are_named(tmp_path: Path, how: str, says: str) -> None:
    idx_folder(tmp_path)
    damage(tmp_path, how)
    with pytest.raises(config.UserError) as error:
        load(f'idx:{tmp_path}')
    assert str(error.value).startswith('config.dataset: ')
    assert says in str(error.value)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('dataset', ['minst', 'idx:', 'tfds:', 'idx:/does/not/exist', 'tfds:no_such_dataset'])
def test_unknown_datasets_are_named(dataset: str) -> None:
    with pytest.raises(config.UserError, match=f'config.dataset: .*{dataset}'):
        load(dataset)


def test_subset_and_validation_are_disjoint_parts_of_one_shuffle() -> None:
    whole = load(validation=0.1)
    some = load(validation=0.1, subset=500)
    other = load(validation=0.1, subset=500, data_seed=1)
    assert [len(split.labels_N) for split in whole.splits.values()] == [54000, 6000, 10000]
    assert list(some.splits) == ['train', 'validation', 'test']
    np.testing.assert_array_equal(some.train.images_NxHxWxC, whole.train.images_NxHxWxC[:500])
    np.testing.assert_array_equal(some.splits['validation'].labels_N, whole.splits['validation'].labels_N)
    assert (some.train.labels_N != other.train.labels_N).any()
    together = [image.tobytes() for split in ('train', 'validation') for image in whole.splits[split].images_NxHxWxC]
    assert sorted(together) == sorted(image.tobytes() for image in load().train.images_NxHxWxC)
    with pytest.raises(config.UserError, match=r'config.subset: 54001 is not allowed; it must be at most 54000'):
        load(validation=0.1, subset=54001)


def wrong(changed: data.Dataset, clean: data.Dataset) -> np.ndarray:
    """The training examples whose labels differ."""
    return np.flatnonzero(changed.train.labels_N != clean.train.labels_N)


def test_label_noise_changes_a_share_of_the_training_labels_alone() -> None:
    clean = load(subset=333, validation=0.1)
    before: set[int] = set()
    for share in (0.1, 0.25, 1.0):
        noisy = load(subset=333, validation=0.1, label_noise=share)
        found = wrong(noisy, clean)
        assert len(found) == round(share * clean.n)
        assert before < set(found)  # more noise changes the same examples and more
        before = set(found)
        assert noisy.train.labels_N.dtype == np.int32
        assert set(noisy.train.labels_N) == set(range(10))
        np.testing.assert_array_equal(noisy.train.images_NxHxWxC, clean.train.images_NxHxWxC)
        for split in ('validation', 'test'):
            np.testing.assert_array_equal(noisy.splits[split].labels_N, clean.splits[split].labels_N)


def test_label_noise_is_symmetric_and_seeded() -> None:
    clean, noisy = load(), load(label_noise=0.5)
    found = wrong(noisy, clean)
    assert len(found) == 30000
    shift = np.bincount((noisy.train.labels_N - clean.train.labels_N)[found] % 10, minlength=10)
    # Each of the 9 other classes as likely: 5 standard deviations of a binomial.
    np.testing.assert_allclose(shift[1:], 30000 / 9, atol=5 * (30000 / 9 * 8 / 9) ** 0.5)
    np.testing.assert_array_equal(load(label_noise=0.5).train.labels_N, noisy.train.labels_N)
    other = load(label_noise=0.5, data_seed=1)  # neither subset nor validation, so the order is the same
    assert len(wrong(other, clean)) == 30000
    assert len(np.intersect1d(wrong(other, clean), found)) < 16000


def test_variants_share_what_they_have_in_common() -> None:
    variants = [
        config.Variant(None, 0.0),
        config.Variant(None, 0.5),
        config.Variant(300, 0.0),
        config.Variant(300, 0.0),
    ]
    loaded = data.load(config.resolve(tiny()).data, variants)
    assert set(loaded) == set(variants)
    whole, noisy, some, _ = (loaded[variant] for variant in variants)
    assert (whole.n, noisy.n, some.n) == (60000, 60000, 300)
    for other in (noisy, some):
        assert other.splits['test'].images_NxHxWxC is whole.splits['test'].images_NxHxWxC
        assert other.splits['test'].labels_N is whole.splits['test'].labels_N
    assert noisy.train.images_NxHxWxC is whole.train.images_NxHxWxC
    assert whole.mean_C != some.mean_C  # each is scaled by its own training images


BUILDER = """
import numpy as np
import tensorflow_datasets as tfds

class BsgapColours(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version('1.0.0')

    def _info(self):
        image = tfds.features.Tensor(shape=(4, 5, 3), dtype=np.uint8)
        features = {'image': image, 'label': tfds.features.ClassLabel(num_classes=3)}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {'train': self._generate_examples(20), 'test': self._generate_examples(10)}

    def _generate_examples(self, n):
        for i in range(n):
            yield i, {'image': np.full((4, 5, 3), i, np.uint8), 'label': i % 3}

class BsgapFarAway(BsgapColours):
    def _split_generators(self, dl_manager):
        dl_manager.download('http://127.0.0.1:9/images.gz')  # nothing listens there
"""


def in_python(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs code beside a module with TFDS builders, in a process of its own (TFDS keeps a registry)."""
    (folder / 'builders.py').write_text(BUILDER)
    lines = 'import builders, sys\nfrom test_data import config, load\n' + code
    return subprocess.run(
        [sys.executable, '-c', lines],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, 'TFDS_DATA_DIR': str(folder / 'tfds'), 'PYTHONPATH': f'{folder}:{ROOT / "tests"}'},
    )


def test_tfds_set_is_prepared_and_its_decoded_copy_read(tmp_path: Path) -> None:
    code = """
for _ in range(2):
    d = load('tfds:bsgap_colours')
    assert d.train.images_NxHxWxC.shape == (20, 4, 5, 3), d.train.images_NxHxWxC.shape
    assert sorted(d.train.images_NxHxWxC[:, 0, 0, 0].tolist()) == list(range(20))
    assert (d.train.labels_N == d.train.images_NxHxWxC[:, 0, 0, 0] % 3).all()
    assert (d.classes, len(d.splits['test'].labels_N)) == (3, 10)
"""
    done = in_python(code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob('tfds/**/bsgap-decoded.npz'))) == 1


def test_tfds_without_network_fails_in_seconds_and_says_what_to_do(tmp_path: Path) -> None:
    code = """
try:
    load('tfds:bsgap_far_away')
except config.UserError as error:
    print(error)
"""
    began = time.monotonic()
    done = in_python(code, tmp_path)
    assert time.monotonic() - began < 60
    assert 'where there is a network' in done.stdout, done.stderr
    assert done.stdout.splitlines()[-1].startswith('config.dataset: tfds:bsgap_far_away cannot be read or prepared: ')
