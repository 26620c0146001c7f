"""Folders of pictures, tables, scikit-learn's sets and those of Hugging Face, each as its users have it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pytest
import sklearn.datasets
from PIL import Image

from bsgap import config, data
from bsgap.data import Dataset, title
from bsgap.errors import UserError

RNG = np.random.default_rng(0)
CLASSES = ('ant', 'bee')


def load(dataset: str, **settings: Any) -> Dataset:
    training_set = config.TrainingSet(0, 0.0)
    return data.load(config.Data(dataset, 0.0, **settings), [training_set])[training_set]


def draw(path: Path, shape: Sequence[int] = (6, 5), mode: str = 'L') -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    array = RNG.integers(0, 256, (*shape, *({'RGB': (3,), 'RGBA': (4,)}.get(mode, ())))).astype(np.uint8)
    picture = Image.fromarray(array)
    assert picture.mode == mode
    picture.save(path)
    return array


def drawn(folder: Path, splits: tuple[str, ...] = ('train', 'test'), **look: Any) -> dict[str, list[np.ndarray]]:
    """Three pictures of each class in each split."""
    return {
        split: [draw(folder / split / name / f'{i}.png', **look) for name in CLASSES for i in range(3)]
        for split in splits
    }


@pytest.mark.parametrize('mode', ['L', 'RGB'])
def test_a_folder_of_pictures(tmp_path: Path, mode: str) -> None:
    arrays = drawn(tmp_path, mode=mode)
    (tmp_path / 'train' / 'ant' / 'notes.txt').write_text('no picture')
    (tmp_path / 'train' / '.hidden').mkdir()
    (tmp_path / 'train' / 'ant' / '._0.png').write_text('what a Mac adds')
    found = load(f'folder:{tmp_path}')
    for split, of in arrays.items():
        np.testing.assert_array_equal(found.splits[split].examples_N, np.reshape(of, (6, 6, 5, -1)))
        assert found.splits[split].labels_N.tolist() == [0, 0, 0, 1, 1, 1]
    assert found.notes == ('its labels ant, bee are the classes 0 to 1, in this order',)
    assert title(f'folder:{tmp_path}') == tmp_path.name


def test_a_folder_without_a_test_split(tmp_path: Path) -> None:
    drawn(tmp_path, ('',))
    found = load(f'folder:{tmp_path}', test_share=1 / 3)
    assert [len(split.labels_N) for split in found.splits.values()] == [4, 2]


def test_jpeg_and_a_grey_picture_among_coloured_ones(tmp_path: Path) -> None:
    draw(tmp_path / 'ant' / 'a.JPG', (8, 8), 'RGB')
    grey = draw(tmp_path / 'ant' / 'b.png', (8, 8))
    draw(tmp_path / 'bee' / 'c.png', (8, 8), 'RGBA')
    draw(tmp_path / 'bee' / 'd.jpeg', (8, 8), 'RGB')
    found = load(f'folder:{tmp_path}', test_share=0.25)
    every = np.concatenate([split.examples_N for split in found.splits.values()])
    assert every.shape == (4, 8, 8, 3)
    assert any((image == grey[..., None]).all() for image in every)
    assert found.notes[0] == 'pictures in RGB, L, RGBA are taken as RGB'


def test_pictures_of_several_sizes(tmp_path: Path) -> None:
    drawn(tmp_path)
    draw(tmp_path / 'test' / 'bee' / '9.png', (4, 4))
    with pytest.raises(UserError, match=r'config.image_size: \(\) is not allowed: .* of 6×5 and 4×4; give one'):
        load(f'folder:{tmp_path}')
    found = load(f'folder:{tmp_path}', image_size=(3, 7))
    assert found.train.examples_N.shape == (6, 3, 7, 1)
    assert found.notes[0] == 'pictures are resized to 3×7'


def broken(folder: Path, how: str) -> None:
    match how:
        case 'empty':
            folder.mkdir(exist_ok=True)
        case 'no classes':
            draw(folder / 'a.png')
        case 'damaged':
            drawn(folder)
            (folder / 'train' / 'ant' / '1.png').write_bytes(b'\x89PNG\r\n\x1a\n')
        case 'deep':
            drawn(folder)
            Image.fromarray(np.zeros((6, 5), np.uint16)).save(folder / 'test' / 'ant' / '1.png')


@pytest.mark.parametrize(
    ('how', 'says'),
    [
        ('missing', 'is not a folder'),
        ('empty', 'has no pictures; it must have some of .jpeg, .jpg, .png in CLASS/'),
        ('no classes', 'has no pictures'),
        ('damaged', 'train/ant/1.png cannot be read: '),
        ('deep', 'has a picture in mode I;16; it must have 8 bits a channel'),
    ],
)
def test_folders_that_do_not_do_are_named(tmp_path: Path, how: str, says: str) -> None:
    broken(tmp_path / 'set', how)
    with pytest.raises(UserError) as error:
        load(f'folder:{tmp_path}/set')
    assert str(error.value).startswith('config.dataset: ')
    assert says in str(error.value)


def frame(n: int = 20) -> pd.DataFrame:
    return pd.DataFrame(
        {
            'height': RNG.normal(180, 9, n), 'age': RNG.integers(20, 60, n), 'smokes': np.arange(n) % 3 == 0,
            'town': np.array(['Ulm', 'Bonn', 'Jena'])[np.arange(n) % 3],
            'ill': np.array(['no', 'yes'])[np.arange(n) % 2],
        }
    )  # fmt: skip


@pytest.mark.parametrize('kind', ['csv', 'parquet'])
def test_tables(tmp_path: Path, kind: str) -> None:
    made, path = frame(), tmp_path / f'my table.{kind}'
    (made.to_csv(path, index=False) if kind == 'csv' else made.to_parquet(path))
    found = load(f'{kind}:{path}', target='ill', test_share=0.25)
    assert [len(split.labels_N) for split in found.splits.values()] == [15, 5]
    x = np.concatenate([split.examples_N for split in found.splits.values()])
    y = np.concatenate([split.labels_N for split in found.splits.values()])
    assert x.dtype == np.float32
    order = np.array([np.flatnonzero(np.isclose(made['height'], height))[0] for height in x[:, 0]])
    town = np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0]])[order % 3]  # Bonn, Jena, Ulm
    expected = np.column_stack([made['height'][order], made['age'][order], made['smokes'][order], town])
    np.testing.assert_allclose(x, expected.astype(float), rtol=1e-6)
    np.testing.assert_array_equal(y, order % 2)
    np.testing.assert_allclose(found.mean_C, found.train.examples_N.mean(0), rtol=1e-5)
    assert found.notes[0] == 'texts are one-hot: town'
    assert title(f'{kind}:{path}') == path.name


def test_whole_numbers_too_large_for_64_bits_are_numbers(tmp_path: Path) -> None:
    frame().assign(age=[10**25 * i for i in range(len(frame()))]).to_csv(tmp_path / 'f.csv', index=False)
    x = load(f'csv:{tmp_path}/f.csv', target='ill').train.examples_N
    assert {round(age / 1e25, 3) for age in x[:, 1].tolist()} <= set(range(len(frame())))
    assert x[:, 1].max() > 1e26


@pytest.mark.parametrize(
    ('change', 'target', 'says'),
    [
        (lambda f: f, '', "config.target: '' is not known; .* has the columns height, age, smokes, town, ill"),
        (lambda f: f, 'weight', "config.target: 'weight' is not known"),
        (lambda f: f.assign(age=f['age'].where(f.index != 6)), 'ill', 'column age has 1 missing values .* in row 7'),
        (lambda f: f.assign(ill=f['ill'].where(f.index > 1)), 'ill', 'column ill has 2 missing values .* in row 1'),
        (lambda f: pd.concat([f.assign(town=f'{i}-' + f['age'].astype(str) + f.index.astype(str)) for i in range(9)]),
         'ill', 'column town has 180 different texts; a class has 100 at most'),
        (lambda f: f[['ill']], 'ill', 'has no column beside ill'),
        (lambda f: f.drop(f.index), 'ill', 'the train split has 0 examples'),
        (lambda f: f.assign(pair=[[0, 1]] * len(f)), 'pair', 'config.target: .* pair is object; it must be of '),
    ],
)  # fmt: skip
def test_tables_that_do_not_do_are_named(
    tmp_path: Path, change: Callable[[pd.DataFrame], pd.DataFrame], target: str, says: str
) -> None:
    change(frame()).to_parquet(tmp_path / 'f.parquet')
    with pytest.raises(UserError, match=says) as error:
        load(f'parquet:{tmp_path}/f.parquet', target=target)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('content', [None, b'', b'\xff\xfe\x00', b'a,b\n1,2,3\n4,5,6,7\n'])
def test_files_that_are_no_tables_are_named(tmp_path: Path, content: bytes | None) -> None:
    for kind in ('csv', 'parquet'):
        path = tmp_path / f'f.{kind}'
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(UserError, match=rf'config.dataset: {kind}:.*f\.{kind} cannot be read: ') as error:
            load(f'{kind}:{path}', target='a')
        assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    ('content', 'says'),
    [
        (b',a,y\n0,1,0\n1,2,1\n', r'column 1 has no name; name it, or write the table without its index'),
        (b'a,y,y\n0,1,0\n1,2,1\n', r'has two columns y; names must differ'),
    ],
)
def test_headings_that_pandas_would_change_are_named(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / 'f.csv').write_bytes(content)
    with pytest.raises(UserError, match=says):
        load(f'csv:{tmp_path}/f.csv', target='y')


def test_dates_are_no_numbers(tmp_path: Path) -> None:
    frame().assign(day=pd.Timestamp('2026-01-01')).to_parquet(tmp_path / 'f.parquet')
    with pytest.raises(UserError, match=r'column day is datetime64.*; it must be of numbers or texts'):
        load(f'parquet:{tmp_path}/f.parquet', target='ill')


def test_sets_of_scikit_learn() -> None:
    digits = load('sklearn:digits')
    assert (digits.n, len(digits.splits['test'].labels_N), digits.outputs) == (1797 - 359, 359, 10)
    x, y = sklearn.datasets.load_digits(return_X_y=True)
    assert np.concatenate([split.labels_N for split in digits.splits.values()]).sum() == y.sum()
    np.testing.assert_allclose(np.sort(digits.train.examples_N.max(0)), np.sort(x.max(0)), atol=2)
    with pytest.raises(UserError, match=r"config.dataset: 'boston' is not known; it must be one of breast_cancer"):
        load('sklearn:boston')


def saved(folder: Path, **columns: Any) -> str:
    made = datasets.Dataset.from_dict(columns)
    both = datasets.DatasetDict({'train': made, 'test': made.select(range(3)), 'unlabelled': made})
    both.save_to_disk(str(folder))
    return f'hf:{folder}'


def test_rows_longer_than_the_heading_are_named(tmp_path: Path) -> None:
    (tmp_path / 'f.csv').write_text('a,b,t\n' + '0,0.5,1,0\n1,0.25,2,1\n' * 5)
    with pytest.raises(UserError, match=r'config.dataset: csv:.*/f.csv cannot be read: .*Length of header'):
        load(f'csv:{tmp_path}/f.csv', target='t')


def test_a_folder_of_hugging_face(tmp_path: Path) -> None:
    arrays = [RNG.integers(0, 256, (4, 4, 3)).astype(np.uint8) for _ in range(6)]
    pictures = saved(tmp_path / 'images', image=[Image.fromarray(array) for array in arrays], label=[0, 1, 2] * 2)
    found = load(pictures)
    np.testing.assert_array_equal(found.train.examples_N, arrays)
    np.testing.assert_array_equal(found.splits['test'].examples_N, arrays[:3])
    assert found.train.labels_N.tolist() == [0, 1, 2] * 2
    assert found.notes == ('the splits unlabelled are left alone',)
    tokens = load(saved(tmp_path / 'tokens', text=[[1, 2], [3, 4], [5, 6], [7, 8]], id=[1, 2, 3, 4], label=[0, 1] * 2))
    assert tokens.train.examples_N.tolist() == [[1, 2], [3, 4], [5, 6], [7, 8]]
    assert tokens.train.examples_N.dtype == np.int32
    assert 'of its columns text, id only text is learned from' in tokens.notes
    columns = load(saved(tmp_path / 'table', a=[0.5, 1, 2, 3], b=list('xyxy'), kind=[0, 1, 1, 0]), target='kind')
    assert columns.train.examples_N.tolist() == [[0.5, 1, 0], [1, 0, 1], [2, 1, 0], [3, 0, 1]]
    whole = np.stack(arrays)
    bytes_ = datasets.Features({'x': datasets.Array3D((4, 4, 3), 'uint8'), 'label': datasets.Value('int64')})
    rows = {'x': list(whole), 'label': [0, 1, 2] * 2}
    made = datasets.Dataset.from_dict(rows, features=bytes_)
    datasets.DatasetDict(train=made, test=made).save_to_disk(str(tmp_path / 'bytes'))
    assert load(f'hf:{tmp_path}/bytes').train.examples_N.dtype == np.uint8
    datasets.DatasetDict(train=made, test=made.remove_columns('label')).save_to_disk(str(tmp_path / 'lacks'))
    ragged = saved(tmp_path / 'ragged', text=[[1, 2], [3, 4], [5, 6], [7, 8]], label=[[0], [0, 1], [1], [0]])
    for dataset, target, says in (
        (f'hf:{tmp_path}/lacks', '', 'its split test lacks the columns label'),
        (ragged, '', 'column label of hf:.* cannot be read'),
        (
            saved(tmp_path / 'none', image=[*map(Image.fromarray, arrays), None], label=[0, 1] * 3 + [1]),
            '',
            'has no picture at number 6',
        ),
        (
            tokens_of_many_lengths(tmp_path),
            '',
            'column text of hf:.* cannot be read: ValueError: all input arrays must have the same shape',
        ),
        (pictures, 'kind', "config.target: 'kind' is not known; .* has the columns image, label"),
        (f'hf:{tmp_path}', '', 'cannot be read: .*; load it once where there is a network, call save_to_disk'),
    ):
        with pytest.raises(UserError, match=says):
            load(dataset, target=target)


def test_an_empty_test_split_of_hugging_face_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which a folder can't hold: `datasets` does not read it back."""
    train = datasets.Dataset.from_dict({'a': [0.5, 1], 'kind': [0, 1]})
    made = datasets.DatasetDict(train=train, test=train.select([]))
    monkeypatch.setattr(datasets, 'load_from_disk', lambda _: made)
    with pytest.raises(UserError, match='the test split has 0 examples and 0 labels'):
        load(f'hf:{tmp_path}', target='kind')


def tokens_of_many_lengths(folder: Path) -> str:
    return saved(folder / 'lengths', text=[[1], [2, 3], [4], [5]], label=[0, 1, 0, 1])


def test_without_a_library_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, library in (('sklearn:iris', 'sklearn'), ('hf:mnist', 'datasets')):
        monkeypatch.setitem(__import__('sys').modules, library, None)
        with pytest.raises(UserError, match=rf"config.dataset: {kind} needs .*pip install -e '\.\[{kind[:2]}"):
            load(kind)
