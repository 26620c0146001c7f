"""Arrays of a user's own: what becomes of examples and labels, what is told, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bsgap import config, data
from bsgap.data import Dataset, arrays, title
from bsgap.data.examples import Source
from bsgap.errors import UserError

N = 20
RNG = np.random.default_rng(0)
Y = np.arange(N) % 3


def splits(x: Any, y: Any = Y, test: tuple[Any, Any] | None = None, share: float = 0.2) -> Any:
    return arrays.splits(Source((x, y), test or (x, y)), config.Data('npz:f', 0.0, test_share=share))


@pytest.mark.parametrize(
    ('x', 'shape', 'dtype'),
    [
        (np.zeros((N, 4, 5), np.uint8), (4, 5, 1), np.uint8),
        (np.zeros((N, 4, 5, 3), np.uint8), (4, 5, 3), np.uint8),
        (np.zeros((N, 7), np.uint8), (7,), np.uint8),
        (np.zeros((N, 4, 5), np.float16), (4, 5), np.float32),
        (np.zeros((N, 7)), (7,), np.float32),
        (np.zeros((N, 7), bool), (7,), np.float32),
        (np.full((N, 7), 2**31 - 1), (7,), np.int32),
    ],
)
def test_examples(x: np.ndarray, shape: tuple[int, ...], dtype: Any) -> None:
    train, test, classes, notes = splits(x)
    for split in (train, test):
        assert (split.examples_N.shape, split.examples_N.dtype) == ((N, *shape), dtype)
        assert split.examples_N.ravel().tolist() == x.ravel().tolist()
        assert (split.labels_N.tolist(), split.labels_N.dtype) == (Y.tolist(), np.int32)
    assert (classes, notes) == (3, ())


@pytest.mark.parametrize(
    ('y', 'index', 'told'),
    [
        (Y + 1, Y, '1, 2, 3'),
        (10 * Y - 10, Y, '-10, 0, 10'),
        (np.array(['cat', 'dog', 'ape'])[Y], np.array([1, 2, 0])[Y], 'ape, cat, dog'),
        (np.array(['b', 'a'], object)[Y % 2], 1 - Y % 2, 'a, b'),
        (Y[:, None] == 0, Y == 0, 'False, True'),
        (np.arange(N) * 2, np.arange(N), '0, 2, 4, 6, 8, 10, 12, 14, … (20 in all)'),
    ],
)
def test_labels_become_classes_in_their_order(y: Any, index: Any, told: str) -> None:
    train, _, classes, notes = splits(np.zeros((N, 2)), y)
    assert train.labels_N.tolist() == index.tolist()
    assert classes == index.max() + 1
    assert notes == (f'its labels {told} are the classes 0 to {classes - 1}, in this order',)


def test_a_class_that_the_test_split_alone_has_is_told() -> None:
    _, test, classes, notes = splits(np.zeros((N, 2)), test=(np.ones((2, 2)), [2, 3]))
    assert (test.labels_N.tolist(), classes) == ([2, 3], 4)
    assert notes == ('no training example has label 3, which test examples have',)


def test_without_a_test_split_a_share_is_held_out() -> None:
    x = np.arange(2.0 * N).reshape(N, 2)
    for _ in range(2):
        train, test, _, notes = arrays.splits(Source((x, Y), None), config.Data('npz:f', 0.0, test_share=0.25))
        assert [len(split.labels_N) for split in (train, test)] == [15, 5]
        together = np.concatenate([train.examples_N, test.examples_N])
        assert sorted(together.tolist()) == x.tolist()
        labels = np.concatenate([train.labels_N, test.labels_N])
        np.testing.assert_array_equal(labels, (together[:, 0] / 2) % 3)
        assert notes == ('there is no test split: 5 of 20 examples are held out for it',)
    for share in (0.0, 0.99):
        with pytest.raises(UserError, match=f'config.test_share: {share} is {round(share * N)} of 20 examples'):
            arrays.splits(Source((x, Y), None), config.Data('npz:f', 0.0, test_share=share))


def test_a_share_that_was_given_must_have_an_effect() -> None:
    """A default may stand in a study of data that have a test split."""
    x, settings = np.arange(2.0 * N).reshape(N, 2), config.Data('npz:f', 0.0, test_share=0.3)
    arrays.splits(Source((x, Y), (x, Y)), settings, ['seeds'])
    assert len(arrays.splits(Source((x, Y), None), settings, ['test_share'])[1].labels_N) == 6
    with pytest.raises(UserError, match=r'^config.test_share: has no effect: the dataset has a test split of its own$'):
        arrays.splits(Source((x, Y), (x, Y)), settings, ['test_share'])


@pytest.mark.parametrize(
    ('x', 'y', 'says'),
    [
        (np.zeros((N, 2), object), Y, 'train examples are object [20, 2]; they must be numbers'),
        (np.zeros(N), Y, 'train examples are float64 [20]; they must be [N, …]'),
        (np.zeros((N, 0)), Y, 'none of it empty'),
        (np.zeros((0, 2)), Y[:0], 'the train split has 0 examples and 0 labels'),
        (np.zeros((N, 2)), Y[1:], 'the train split has 20 examples and 19 labels'),
        (np.full((N, 2), -1), Y, 'with values outside 0 to'),
        (np.full((N, 2), 1e39), Y, '20 of them, first number 0, have a value that is NaN, infinite or too large'),
        (np.where(np.arange(N) == 7, np.nan, 0)[:, None], Y, '1 of them, first number 7,'),
        (np.zeros((N, 2)), Y / 2, 'train labels are float64 [20]; they must be whole numbers'),
        (np.zeros((N, 2)), np.eye(N), 'train labels are float64 [20, 20]'),
        (np.ma.masked_equal(np.eye(N), 1), Y, 'some of the train examples are masked; fill them'),
        (np.zeros((N, 2)), np.ma.masked_equal(Y, 1), 'some of the train labels are masked'),
    ],
)
def test_what_cannot_be_learned_from_is_named(x: Any, y: Any, says: str) -> None:
    with pytest.raises(UserError) as error:
        splits(x, y)
    assert str(error.value).startswith('config.dataset: npz:f')
    assert says in str(error.value)


def test_a_constant_that_is_not_exact_in_binary_stays() -> None:
    x = np.column_stack([np.arange(500.0), np.full(500, 0.1)])
    y = np.arange(500) % 2
    train = arrays.splits(Source((x, y), (x, y)), config.Data('npz:f', 0.0))[0]
    np.testing.assert_array_equal(train.examples_N, x.astype(np.float32))


def test_splits_that_differ_are_named() -> None:
    with pytest.raises(UserError, match=r'are float32 \[2\] and test examples uint8 \[2\]; they must be alike'):
        splits(np.zeros((N, 2)), test=(np.zeros((N, 2), np.uint8), Y))
    with pytest.raises(UserError, match=r'training labels are int64 \[\] and test labels <U1 \[\]'):
        splits(np.zeros((N, 2)), test=(np.zeros((N, 2)), np.array(['a'] * N)))


def of_task(task: str, y: Any, x: Any = None) -> Any:
    x = np.zeros((N, 2)) if x is None else x
    return arrays.splits(Source((x, y), (x, y)), config.Data('npz:f', 0.0, task=task))


@pytest.mark.parametrize('shape', [(N,), (N, 1), (N, 3)])
@pytest.mark.parametrize('kind', [np.float64, np.int16])
def test_targets_of_a_regression(shape: tuple[int, ...], kind: Any) -> None:
    y = RNG.normal(100, 30, shape).astype(kind)
    train, _, outputs, notes = of_task('regression', y)
    assert (train.labels_N.dtype, outputs, notes) == (np.float64, shape[-1] if len(shape) > 1 else 1, ())
    np.testing.assert_allclose(train.labels_N, y.reshape(N, -1), rtol=1e-6)


def test_targets_are_standardised_by_the_training_split(tmp_path: Path) -> None:
    x, y = (
        RNG.normal(size=(N, 2)),
        RNG.normal(100, 30, (N, 2)) + np.array([0, 1e9]),
    )  # which float32 does not tell apart
    np.savez(tmp_path / 'f.npz', x_train=x, y_train=y, x_test=x[:5], y_test=y[:5])
    found = load(f'npz:{tmp_path}/f.npz', task='regression')
    assert (found.outputs, found.label_shape) == (2, ())
    np.testing.assert_allclose(found.train.labels_N.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(found.train.labels_N.std(0), 1, atol=1e-5)
    assert found.target_std_K is not None
    own = found.splits['test'].labels_N * found.target_std_K + found.target_mean_K
    np.testing.assert_allclose(own, y[:5], rtol=0, atol=1e-3)
    assert found.baseline['train'] == pytest.approx(0, abs=1e-5)
    assert found.baseline['test'] <= 0


def test_targets_and_numbers_that_cannot_be_told_apart_are_named(tmp_path: Path) -> None:
    x, y = RNG.normal(size=(N, 2)), np.arange(float(N))
    for change, task, says in (
        ({'y_train': np.ones(N)}, 'regression', r'config.task: regression is not allowed; the targets .* must differ'),
        # Their standard deviations are not 0, as 0.1 is not exact in binary.
        ({'y_train': np.full(500, 0.1), 'x_train': np.zeros((500, 2))}, 'regression', 'must differ'),
        ({'y_train': y * 1e300}, 'regression', 'not by more than 1e150'),
        (
            {'x_train': x + np.array([0, 1e9]), 'y_train': y.astype(int)},
            'classification',
            'of channel or feature 2 float32 does not tell its values apart',
        ),
        ({'y_train': np.zeros(N, int)}, 'classification', 'has one class alone, 0; there must be two'),
    ):
        np.savez(tmp_path / 'f.npz', **{'x_train': x, 'y_train': y, **change})
        with pytest.raises(UserError, match=says):
            load(f'npz:{tmp_path}/f.npz', task=task)
    np.savez(tmp_path / 'f.npz', x_train=x, y_train=y, x_test=x[:1], y_test=y[:1])
    (note,) = load(f'npz:{tmp_path}/f.npz', task='regression').notes
    assert note.startswith('where the targets of a split are all the same')


def test_booleans_and_whole_numbers_are_alike() -> None:
    train, test, classes, _ = splits(np.zeros((N, 2)), Y > 0, (np.zeros((2, 2)), np.array([0, 1], np.uint64)))
    assert (train.labels_N.tolist(), test.labels_N.tolist(), classes) == ((Y > 0).tolist(), [0, 1], 2)


def test_a_label_at_each_position() -> None:
    y = RNG.integers(5, 9, (N, 4))
    train, _, outputs, notes = of_task('classification', y, RNG.integers(0, 9, (N, 4)))
    assert train.labels_N.tolist() == (y - 5).tolist()
    assert (outputs, notes) == (4, ('its labels 5, 6, 7, 8 are the classes 0 to 3, in this order',))


@pytest.mark.parametrize(
    ('task', 'y', 'says'),
    [
        ('regression', np.array(['a'] * N), 'targets must be numbers'),
        ('regression', np.zeros((N, 2, 2)), 'targets must be numbers, [N] or [N, K]'),
        ('regression', np.full(N, np.inf), 'some NaN or infinite'),
        ('classification', np.zeros(N), 'or else config.task=regression'),
    ],
)
def test_labels_of_another_task_are_named(task: str, y: Any, says: str) -> None:
    with pytest.raises(UserError) as error:
        of_task(task, y)
    assert says in str(error.value)


def load(dataset: str, **settings: Any) -> Dataset:
    training_set = config.TrainingSet(0, 0.0)
    return data.load(config.Data(dataset, 0.0, **settings), [training_set])[training_set]


@pytest.mark.parametrize(
    'names',
    [
        ('x_train', 'y_train', 'x_test', 'y_test'),
        ('train_images', 'train_labels', 'test_images', 'test_labels'),
        ('X_train', 'Y_train', 'X_test', 'Y_test'),
    ],
)
def test_npz_and_its_normalisation(tmp_path: Path, names: tuple[str, ...]) -> None:
    x = RNG.normal(3, 2, (N, 4)).astype(np.float32)
    np.savez(tmp_path / 'f.npz', **dict(zip(names, (x, Y, x[:5], Y[:5]), strict=True)), ids=Y)
    found = load(f'npz:{tmp_path}/f.npz')
    np.testing.assert_array_equal(found.train.examples_N, x)
    np.testing.assert_array_equal(found.splits['test'].labels_N, Y[:5])
    np.testing.assert_allclose(found.mean_C, x.mean(0), rtol=1e-6)
    np.testing.assert_allclose(found.std_C, x.std(0), rtol=1e-6)
    assert title(f'npz:{tmp_path}/f.npz') == 'f.npz'
    with pytest.raises(UserError, match=r'config.mean: .* so give 1 or 4'):
        load(f'npz:{tmp_path}/f.npz', mean=(1.0, 2.0))


def test_constants_by_shape(tmp_path: Path) -> None:
    """One a channel of images, one for all of [N, A, B], none for tokens."""
    for x, mean in (
        (RNG.normal(3, 2, (N, 4, 4, 3)), lambda x: x.mean((0, 1, 2))),
        (RNG.normal(3, 2, (N, 4, 4)), lambda x: [x.mean()]),
        (RNG.integers(0, 9, (N, 4)), lambda _: [0.0]),
    ):
        np.savez(tmp_path / 'f.npz', x_train=x, y_train=Y)
        np.testing.assert_allclose(load(f'npz:{tmp_path}/f.npz', test_share=0.05).mean_C, mean(x), rtol=0.1)
    with pytest.raises(UserError, match=r'config.std: \(2.0,\) is not allowed; the examples are whole numbers'):
        load(f'npz:{tmp_path}/f.npz', std=(2.0,))


@pytest.mark.parametrize(
    ('made', 'says'),
    [
        ({}, 'f.npz must hold exactly one array x_train; it holds none'),
        ({'x_train': Y}, 'must hold exactly one array y_train; it holds x_train'),
        ({'x_train': Y, 'train_x': Y, 'y_train': Y}, 'must hold exactly one array x_train; it holds'),
        ({'x_train': Y, 'y_train': Y, 'x_test': Y}, 'has half a test split'),
        ({'x_train': np.array([None]), 'y_train': Y}, 'cannot be read: ValueError: Object arrays cannot be loaded'),
        (b'PK', 'cannot be read: BadZipFile: File is not a zip file'),
        (b'a,b', 'cannot be read: BadZipFile: File is not a zip file'),
        (None, 'cannot be read: No such file'),
    ],
)
def test_npz_files_that_do_not_do_are_named(tmp_path: Path, made: Any, says: str) -> None:
    if isinstance(made, dict):
        np.savez(tmp_path / 'f.npz', **made)
    elif made:
        (tmp_path / 'f.npz').write_bytes(made)
    with pytest.raises(UserError) as error:
        load(f'npz:{tmp_path}/f.npz')
    assert str(error.value).startswith(f'config.dataset: npz:{tmp_path}/f.npz')
    assert says in str(error.value)
    assert '\n' not in str(error.value)


SOURCE = """
import numpy as np
x, y = np.arange(12.0).reshape(6, 2), list('ababab')
def good(): return (x, y), (x[:2], y[:2])
def alone(): return (x, y), None
def half(): return x, y, x
def masked(): return (x, y), (np.ma.masked_less(x, 3), y)
def broken(): return (x, y[0].wrong), None
number = 3
"""


def test_a_function_of_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / 'mysource.py').write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    found = load('mysource:good')
    assert found.train.examples_N.tolist() == np.arange(12).reshape(6, 2).tolist()
    assert (found.splits['test'].labels_N.tolist(), found.outputs) == ([0, 1], 2)
    assert load('mysource:alone', test_share=0.5).n == 3
    for name, says in {
        'none': 'mysource has no function none', 'number': 'mysource has no function number',
        'half': r'must return \(x_train, y_train\), \(x_test, y_test\)', 'broken': r'mysource.py:8: AttributeError',
        'masked': 'some of the test examples are masked',
    }.items():  # fmt: skip
        with pytest.raises(UserError, match=f'config.dataset: mysource:{name}.*{says}'):
            load(f'mysource:{name}')
    with pytest.raises(UserError, match=r'config.dataset: nosuchmodule:f: ModuleNotFoundError'):
        load('nosuchmodule:f')
