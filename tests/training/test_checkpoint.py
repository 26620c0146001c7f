"""Checkpoints hold what was saved, or say that they don't."""

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import jax
import ml_dtypes
import numpy as np
import pytest

from bsgap.training.checkpoint import KEEP, Checkpoints, DamagedError, NotSavedError, Saved
from bsgap.training.workdir import saved_updates


class State(NamedTuple):
    params: Any
    update: Any


def state(update: int) -> State:
    kernel = np.random.default_rng(update).normal(size=(64, 64)).astype(np.float32)
    return State({'layers': {0: {'kernel': kernel}, 10: {'kernel': kernel + 1}}}, np.array(update, np.int32))


def saved(update: int, **changes: Any) -> Saved:
    return Saved(state(update), 1.5 * update, 0.5, ['a-seed0', 'a-seed1'])._replace(**changes)


def assert_equal(first: Any, second: Any) -> None:
    np.testing.assert_equal(first, second)
    assert first.state.params['layers'][0]['kernel'].dtype == np.float32


@pytest.fixture
def empty(tmp_path: Path) -> Checkpoints:
    """Of a run that has not begun."""
    made = Checkpoints(tmp_path, 'mine')
    made.folder.parent.mkdir(parents=True)
    (made.folder.parent / 'run.json').touch()
    return made


@pytest.fixture
def checkpoints(empty: Checkpoints) -> Checkpoints:
    """Of a run that was saved at 5, 9 and 12, the first of which was deleted again."""
    for update in (5, 9, 12):
        empty.save(update, saved(update))
    empty.wait()
    return empty


def test_what_was_saved_is_loaded(checkpoints: Checkpoints) -> None:
    assert checkpoints.updates() == [9, 12]
    assert len(checkpoints.updates()) == KEEP
    for update in (9, 12):
        assert_equal(checkpoints.load(update, state(0)), saved(update))
        assert checkpoints.cohort(update) == ['a-seed0', 'a-seed1']
    again = Checkpoints(checkpoints.workdir, checkpoints.run)
    assert_equal(again.load(12, state(0)), saved(12))


def test_a_part_is_loaded_by_itself(checkpoints: Checkpoints) -> None:
    found = checkpoints.load(12, {'params': state(0).params}, whole=False).state
    np.testing.assert_equal(found, {'params': state(12).params})
    with pytest.raises(DamagedError, match='it holds another model'):
        checkpoints.load(12, {'model_state': state(0).params}, whole=False)


def test_another_model_is_named(checkpoints: Checkpoints) -> None:
    params = state(0).params
    for other in (
        {**params, 'more': np.float32([1])},
        {'layers': {0: params['layers'][0]}},
        {'layers': {**params['layers'], 10: {'kernel': np.zeros((64, 1), np.float32)}}},
        {'layers': {**params['layers'], 10: {'kernel': np.zeros((64, 64), np.float64)}}},
    ):
        with pytest.raises(DamagedError, match='it holds another model'):
            checkpoints.load(12, State(other, np.int32(0)))


def test_what_orbax_loads_without_a_word_is_compared(checkpoints: Checkpoints) -> None:
    """Flipped bits of the data, one at a time, and each fact that was changed."""
    folder, told = checkpoints.folder / '12', 0
    file = max((path for path in folder.rglob('*') if path.is_file()), key=lambda path: path.stat().st_size)
    whole = file.read_bytes()
    for place in range(0, len(whole), len(whole) // 16):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        try:
            assert_equal(checkpoints.load(12, state(0)), saved(12))  # between the arrays lie bytes that mean nothing
        except DamagedError as error:
            if 'its checksum does not match' in str(error):
                told += 1
                with pytest.raises(DamagedError, match='its checksum does not match'):
                    checkpoints.load(12, {'update': state(0).update}, whole=False)
    assert told > 8
    file.write_bytes(whole)
    metadata = folder / '_CHECKPOINT_METADATA'
    content = json.loads(metadata.read_text())
    for fact, value in (('train_seconds', 99.0), ('eval_seconds', 99.0), ('cohort', ['a-seed0'])):
        changed = json.loads(metadata.read_text())
        changed['custom_metadata']['facts'][fact] = value
        metadata.write_text(json.dumps(changed))
        with pytest.raises(DamagedError, match='its checksum does not match'):
            checkpoints.load(12, state(0))
        metadata.write_text(json.dumps(content))
    assert_equal(checkpoints.load(12, state(0)), saved(12))


def test_a_checkpoint_that_is_gone_or_in_pieces_is_damaged(checkpoints: Checkpoints) -> None:
    (checkpoints.folder / '12' / '_CHECKPOINT_METADATA').unlink()
    shutil.rmtree(checkpoints.folder / '9')
    again = Checkpoints(checkpoints.workdir, checkpoints.run)
    for update in (9, 12):
        with pytest.raises(DamagedError) as error:
            again.load(update, state(0))
        assert '\n' not in str(error.value)
        assert again.cohort(update) == []


def test_a_folder_that_is_gone_is_named_and_not_made_again(checkpoints: Checkpoints) -> None:
    shutil.rmtree(checkpoints.folder.parent)
    with pytest.raises(NotSavedError, match=r'checkpoints/13 could not be written \(No such file or directory\)'):
        checkpoints.save(13, saved(13))
    assert not checkpoints.folder.parent.exists()


def test_later_ones_are_deleted(checkpoints: Checkpoints) -> None:
    checkpoints.delete_after(9)
    assert checkpoints.updates() == [9]
    checkpoints.save(11, saved(11))
    checkpoints.wait()
    assert checkpoints.updates() == [9, 11]


def test_the_updates_saved_are_told_by_the_names_of_folders(tmp_path: Path) -> None:
    for name in ('9', '12', '100', '33.orbax-checkpoint-tmp', '7 copy', 'x'):
        (tmp_path / 'runs' / 'a-seed0' / 'checkpoints' / name).mkdir(parents=True)
    assert saved_updates(tmp_path, 'a-seed0') == [9, 12, 100]
    assert saved_updates(tmp_path, 'b-seed0') == []


def test_no_two_leaves_have_one_name_and_what_is_empty_comes_back(empty: Checkpoints) -> None:
    names: list[Any] = ['a.b', 'a%2Eb', 'c/d', '0', 'a']
    tree = {name: np.full(2, i, np.float16) for i, name in enumerate(names)}
    tree['a'] = {'b': np.full(3, 7, np.int8), 'empty': np.zeros((0, 2), np.float32)}
    lists = {'list': [np.full(4, 9, np.uint32), np.bool_([True])], 'list.0': np.ones(1, ml_dtypes.bfloat16)}
    whole = State({**tree, **lists}, np.array(1, np.int32))
    empty.save(1, saved(1, state=whole))
    empty.read_back(1)
    found = empty.load(1, whole).state
    assert jax.tree.structure(found) == jax.tree.structure(whole)
    for leaf, expected in zip(jax.tree.leaves(found), jax.tree.leaves(whole), strict=True):
        assert (leaf.dtype, leaf.shape, leaf.tobytes()) == (expected.dtype, expected.shape, expected.tobytes())


def test_what_is_half_written_or_half_deleted_is_cleared_away(checkpoints: Checkpoints) -> None:
    for name in ('33.orbax-checkpoint-tmp', '5.deleted'):
        shutil.copytree(checkpoints.folder / '9', checkpoints.folder / name)
    assert checkpoints.updates() == [9, 12]
    checkpoints.clear()
    assert sorted(path.name for path in checkpoints.folder.iterdir()) == ['12', '9']


def test_what_was_written_is_compared_with_what_is_read(checkpoints: Checkpoints) -> None:
    checkpoints.read_back(12)
    for path in (checkpoints.folder / '12').rglob('d/*'):
        path.write_bytes(b'')
    with pytest.raises(NotSavedError, match='checkpoints/12 could not be written'):
        checkpoints.read_back(12)
    shutil.rmtree(checkpoints.folder / '12')
    shutil.copytree(checkpoints.folder / '9', checkpoints.folder / '12')
    with pytest.raises(NotSavedError, match=r'checkpoints/12 .* \(what is read is not what was written\)'):
        checkpoints.read_back(12)
