"""A dataset as a study sees it: which examples are for what, whose labels are changed, and how they are scaled."""

from typing import Any

import numpy as np
import pytest
from helpers import tiny

from bsgap import config, data
from bsgap.data import Dataset, title
from bsgap.errors import UserError


def load(dataset: str = 'mnist', **changes: Any) -> Dataset:
    study = config.resolve(tiny(batch_size=(), dataset=dataset, **{'subset': 0, **changes}))
    (made,) = data.load(study.data, [study.recipes[0].training_set]).values()
    return made


def test_packaged_mnist() -> None:
    mnist = load()
    assert mnist.train.examples_N.shape == (60000, 28, 28, 1)
    assert mnist.splits['test'].examples_N.shape == (10000, 28, 28, 1)
    assert mnist.outputs == 10
    # Known facts of the database: its first labels, its constants, and the number of zeros in the test split.
    assert mnist.train.labels_N[:5].tolist() == [5, 0, 4, 1, 9]
    assert (mnist.splits['test'].labels_N == 0).sum() == 980
    np.testing.assert_allclose((mnist.mean_C[0], mnist.std_C[0]), (0.1307, 0.3081), atol=5e-5)


def test_given_constants_are_used() -> None:
    mnist = load(mean=(0.25,), std=(0.5,))
    assert (mnist.mean_C.tolist(), mnist.std_C.tolist()) == ([0.25], [0.5])
    with pytest.raises(UserError, match=r'config.mean: .* so give 1$'):
        load(mean=(0.1, 0.2))


@pytest.mark.parametrize('dataset', ['minst', 'idx:', 'tfds:', 'idx:/does/not/exist', 'tfds:no_such_dataset'])
def test_unknown_datasets_are_named(dataset: str) -> None:
    with pytest.raises(UserError, match=f'config.dataset: .*{dataset}'):
        load(dataset)


def test_subset_and_validation_are_disjoint_parts_of_one_shuffle() -> None:
    whole = load(validation=0.1)
    some = load(validation=0.1, subset=500)
    other = load(validation=0.1, subset=500, data_seed=1)
    assert [len(split.labels_N) for split in whole.splits.values()] == [54000, 6000, 10000]
    assert list(some.splits) == ['train', 'validation', 'test']
    np.testing.assert_array_equal(some.train.examples_N, whole.train.examples_N[:500])
    np.testing.assert_array_equal(some.splits['validation'].labels_N, whole.splits['validation'].labels_N)
    assert (some.train.labels_N != other.train.labels_N).any()
    together = [image.tobytes() for split in ('train', 'validation') for image in whole.splits[split].examples_N]
    assert sorted(together) == sorted(image.tobytes() for image in load().train.examples_N)
    assert load(validation=0.1, subset=54001).n == 54000  # as many as there are
    with pytest.raises(UserError, match=r'config.validation: 1e-06 is 0 of 60000 examples; it must leave some'):
        load(validation=1e-6)


def wrong(changed: Dataset, clean: Dataset) -> np.ndarray:
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
        np.testing.assert_array_equal(noisy.train.examples_N, clean.train.examples_N)
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


def test_training_sets_share_what_they_have_in_common() -> None:
    training_sets = [
        config.TrainingSet(0, 0.0),
        config.TrainingSet(0, 0.5),
        config.TrainingSet(300, 0.0),
        config.TrainingSet(300, 0.0),
    ]
    loaded = data.load(config.resolve(tiny()).data, training_sets)
    assert set(loaded) == set(training_sets)
    whole, noisy, some, _ = (loaded[training_set] for training_set in training_sets)
    assert (whole.n, noisy.n, some.n) == (60000, 60000, 300)
    for other in (noisy, some):
        assert other.splits['test'].examples_N is whole.splits['test'].examples_N
        assert other.splits['test'].labels_N is whole.splits['test'].labels_N
    assert noisy.train.examples_N is whole.train.examples_N
    assert whole.mean_C != some.mean_C  # each is scaled by its own training images


def test_a_reader_knows_a_dataset_by_its_title() -> None:
    titles = {'mnist': 'mnist', 'idx:/some/where/emnist/': 'emnist', 'tfds:cifar10': 'cifar10', 'my:data': 'my:data'}
    assert {dataset: title(dataset) for dataset in titles} == titles
