"""Modules of the users' own, in the ways in which Flax's documentation writes them."""

from pathlib import Path
from typing import Any

import flax_ways
import numpy as np
import pytest
from helpers import final_leaves, tiny
from ml_collections import ConfigDict

import bsgap
from bsgap.errors import UserError


def own(name: str, **changes: Any) -> ConfigDict:
    """A study of one of the modules in `flax_ways`, on small pictures."""
    return tiny(batch_size=(4,), seeds=1, epochs=1, model=f'flax_ways:{name}', **changes)


@pytest.mark.smoke
@pytest.mark.filterwarnings("ignore:Using 'Module.sow")
def test_modules_as_flax_writes_them_train_are_saved_and_loaded(tmp_path: Path, pictures: str) -> None:
    study = tiny(dataset=pictures, subset=40, batch_size=(), seeds=1, epochs=1)
    study.batch_size = 16
    study.recipes = {name: {'model': f'flax_ways:{name}'} for name in flax_ways.SOUND}
    assert set(bsgap.train(study, tmp_path).status) == {'done'}
    images = np.random.default_rng(0).integers(0, 256, (20, 2, 2, 1), dtype=np.uint8)
    for name, leaves in final_leaves(tmp_path).items():
        logits_BxK = bsgap.load(tmp_path, name)(images)
        assert (logits_BxK.shape, logits_BxK.dtype) == ((20, 3), np.float32)
        assert all(np.isfinite(leaf).all() for leaf in leaves.values() if leaf.dtype == np.float32)


@pytest.mark.parametrize(
    ('name', 'says'),
    [
        ('Cached', r'flax_ways.py:\d+: ValueError: Autoregressive cache shape error'),
        ('Growing', r'Growing: seen is float\[1\] before a call and float\[2\] after it'),
        ('MadeInACall', r'MadeInACall: later is absent before a call'),
        ('WholeParameter', r'WholeParameter: steps is int32; a parameter is of floats'),
        ('PlainList', r'flax_ways.py:\d+: ValueError: Found data on value of type'),
        ('WrongWidth', r'flax_ways.py:\d+: TypeError: dot_general requires'),
        ('Misspelt', r"flax_ways.py:\d+: NameError: name 'jnpp' is not defined"),
        ('Leaving', r'flax_ways.py:\d+: SystemExit: 3'),
        ('Calling', r'flax_ways.py:\d+: ArithmeticError: in a callback'),
        ('Caching', r'Caching keeps an array of one call for the next'),
        ('WithoutGradient', r'WithoutGradient: .*ValueError: Reverse-mode differentiation does not work'),
        ('WithoutParameters', r'WithoutParameters: it has no nnx.Param'),
        ('Whole', r'Whole: maps .* to .*bool.*, not to logits'),
        ('OtherTrain', r"OtherTrain: TypeError: .*missing 1 required positional argument: 'mode'"),
        ('Speechless', r'flax_ways.py:\d+: SpeechlessError: '),
        ('Text', r"Text: TypeError: text is 'hello', which is no array"),
        ('Squeezing', r'Squeezing: maps 1 examples to .*, not to logits of shape \(1, 3\)'),
    ],
)
def test_what_a_module_does_wrong_is_one_line(tmp_path: Path, pictures: str, name: str, says: str) -> None:
    """Before the first update."""
    study = own(name, dataset=pictures, subset=40)
    study.sweep.batch_size = (1,)
    with pytest.raises(UserError, match=rf'^config.model: .*{says}') as error:
        bsgap.train(study, tmp_path)
    assert '\n' not in str(error.value)
    assert not (tmp_path / 'study.json').exists() or set(bsgap.runs(tmp_path)['update']) <= {0}
