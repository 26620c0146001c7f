"""Image-classification sets of TensorFlow Datasets."""

import importlib.util
import os
from pathlib import Path
from typing import Any

import numpy as np

from bsgap import files
from bsgap.config import Data
from bsgap.data.examples import Source
from bsgap.errors import UserError


def read(name: str, settings: Data) -> Source:
    """Reads a TFDS set through its decoded copy, which is made on first use beside the prepared set."""
    import tensorflow_datasets as tfds  # 1.4 s, so only where it is needed
    from tensorflow_datasets.core.download import downloader

    tfds.disable_progress_bar()
    downloader.MAX_RETRIES = 1  # the default retries for 200 s when there is no network
    try:
        builder = tfds.builder(name, file_format='array_record')
        copy = Path(os.fspath(builder.data_dir)) / 'bsgap-decoded.npz'
        if not copy.is_file():
            builder.download_and_prepare()
            _decode(name, builder, copy)
        with np.load(copy, allow_pickle=False) as arrays:
            splits = ((arrays[f'{split}_images'], arrays[f'{split}_labels']) for split in ('train', 'test'))
            return Source(*splits)
    except UserError:
        raise
    except Exception as error:  # whatever TFDS meets on its way, the user needs the cause and the way out
        cause: BaseException = error
        while (deeper := cause.__cause__ or cause.__context__) is not None:
            cause = deeper
        reason = (str(cause).strip().splitlines() or [type(cause).__name__])[0]
        tensorflow = importlib.util.find_spec('tensorflow') is not None
        needs = '' if tensorflow else " most sets need TensorFlow to be prepared (pip install 'bsgap[tf]');"
        remedy = 'prepare it, in the format array_record, where there is a network and copy the folder here'
        problem = f'tfds:{name} cannot be read or prepared: {reason};{needs} {remedy}, or use idx:FOLDER'
        raise UserError(f'config.dataset: {problem}') from error


def _decode(name: str, builder: Any, copy: Path) -> None:
    """Writes the splits train and test of a prepared TFDS set as plain arrays."""
    features, splits = builder.info.features, builder.info.splits
    if not {'image', 'label'} <= set(features) or not {'train', 'test'} <= set(splits):
        found = f'features {", ".join(features)} and splits {", ".join(splits)}'
        raise UserError(f'config.dataset: tfds:{name} has {found}; it must have image and label, train and test')
    arrays: dict[str, np.ndarray] = {}
    for split in ('train', 'test'):
        source = builder.as_data_source(split=split)
        examples = source.__getitems__(range(len(source)))
        shapes = {example['image'].shape for example in examples}
        if len(shapes) != 1 or examples[0]['image'].dtype != np.uint8:
            raise UserError(f'config.dataset: tfds:{name} must have uint8 images of one size, not {len(shapes)}')
        arrays[f'{split}_images'] = np.stack([example['image'] for example in examples])
        arrays[f'{split}_labels'] = np.asarray([example['label'] for example in examples], np.int32)
    with files.whole(copy) as part, part.open('wb') as file:
        np.savez(file, allow_pickle=False, **arrays)
