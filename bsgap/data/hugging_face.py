"""Sets of Hugging Face `datasets`, from its cache, the network, or a folder that `save_to_disk` wrote."""

import os
import socket
import urllib.parse
import urllib.request

import numpy as np

from bsgap.config import Data
from bsgap.config.checks import require
from bsgap.data import pictures, table
from bsgap.data.examples import Source, reading
from bsgap.errors import optional
from bsgap.files import expanded

TARGETS = ('label', 'labels', 'target', 'fine_label')


def read(where: str, settings: Data) -> Source:
    """The splits train and test of a set: its column of images, or of arrays, or else all columns as a table."""
    what = f'hf:{where}'
    os.environ.setdefault('HF_HUB_DISABLE_TELEMETRY', '1')
    with optional(f'config.dataset: {what}', 'datasets', 'hf'):
        import datasets  # 1 s
        import huggingface_hub.constants as hub
    datasets.disable_progress_bars()
    remedy = '; load it once where there is a network, call save_to_disk(FOLDER), and give hf:FOLDER'
    with reading(what, remedy):
        if expanded(where).is_dir():
            found = datasets.load_from_disk(str(expanded(where)))
        else:
            if not _reached(hub.ENDPOINT):  # or else it tries for half a minute
                hub.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
            found = datasets.load_dataset(where)
    splits = found if isinstance(found, dict) else {'train': found}
    require('train' in splits, 'dataset', f'{what} has the splits {", ".join(splits)}; it must have train')
    train, test = splits['train'], splits.get('test')
    columns = train.column_names
    target = settings.target or next((name for name in TARGETS if name in columns), '')
    problem = f'{settings.target!r} is not known; {what} has the columns {", ".join(columns)}'
    require(target in columns, 'target', problem)
    lacks = ', '.join(sorted(set(columns) - set(test.column_names))) if test is not None else ''
    require(not lacks, 'dataset', f'{what}: its split test lacks the columns {lacks}, which train has')
    kinds = {name: kind for name, kind in train.features.items() if name != target}
    images = [name for name, kind in kinds.items() if isinstance(kind, datasets.Image)]
    arrays = [name for name, kind in kinds.items() if not isinstance(kind, datasets.Value | datasets.ClassLabel)]
    left = [name for name in splits if name not in ('train', 'test')]
    notes: tuple[str, ...] = (f'the splits {", ".join(left)} are left alone',) if left else ()
    if not arrays:
        source = table.encode(what, train.to_pandas(), test.to_pandas() if test is not None else None, target)
        return source._replace(notes=(*source.notes, *notes))
    column = (images or arrays)[0]
    if len(kinds) > 1:
        notes += (f'of its columns {", ".join(kinds)} only {column} is learned from',)
    every = [each for each in (train, test) if each is not None]
    if images:
        x_N, more = pictures.stack((picture for each in every for picture in each[column]), what, settings)
        notes += more
    else:
        with reading(f'column {column} of {what}'):  # its arrays may have different shapes
            x_N = np.concatenate([np.stack(each.with_format('numpy')[column][:]) for each in every])
        kind = kinds[column]
        while hasattr(kind, 'feature'):  # a list's
            kind = kind.feature
        x_N = x_N.astype(np.uint8) if getattr(kind, 'dtype', '') == 'uint8' else x_N  # which were made int64
    with reading(f'column {target} of {what}'):
        y_N = np.concatenate([np.asarray(each[target][:]) for each in every])
    n = len(train)
    return Source((x_N[:n], y_N[:n]), (x_N[n:], y_N[n:]) if test is not None else None, notes)


def _reached(endpoint: str) -> bool:
    """Whether there is a network that leads there; behind a proxy that is not known, and taken for granted."""
    try:
        socket.create_connection((urllib.parse.urlsplit(endpoint).hostname, 443), timeout=3).close()
    except OSError:
        return bool(urllib.request.getproxies())
    return True
