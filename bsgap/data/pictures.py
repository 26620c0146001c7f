"""Pictures: a folder of PNG and JPEG files, a subfolder a class."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from bsgap.config import Data
from bsgap.config.checks import require
from bsgap.data.examples import Source, reading
from bsgap.files import expanded

ENDINGS = ('.jpeg', '.jpg', '.png')
GREY, COLOUR = 'L', 'RGB'


def read(where: str, settings: Data) -> Source:
    """Reads FOLDER/train/CLASS/* and FOLDER/test/CLASS/*, or FOLDER/CLASS/* without a test split, in order of names."""
    folder = expanded(where)
    require(folder.is_dir(), 'dataset', f'folder:{folder} is not a folder')
    with reading(f'folder:{folder}'):
        parts = [folder / name for name in ('train', 'test')]
        paths = [_found(part) for part in (parts if all(part.is_dir() for part in parts) else [folder])]
    for part in paths:
        needs = f'{", ".join(ENDINGS)} in CLASS/, or in train/CLASS/ and test/CLASS/'
        require(part, 'dataset', f'folder:{folder} has no pictures; it must have some of {needs}')
    images_N, notes = stack((_opened(path) for part in paths for path in part), f'folder:{folder}', settings)
    of = np.array([path.parent.name for part in paths for path in part])
    n = len(paths[0])
    test = (images_N[n:], of[n:]) if len(paths) > 1 else None
    return Source((images_N[:n], of[:n]), test, notes)


def _found(folder: Path) -> list[Path]:
    """The pictures of all classes; what is hidden, or no picture, is left alone."""
    classes = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith('.'))
    found = [path for each in classes for path in sorted(each.iterdir())]
    return [path for path in found if path.suffix.lower() in ENDINGS and not path.name.startswith('.')]


def _opened(path: Path) -> Any:
    from PIL import Image  # 0.1 s, so only where it is needed

    with reading(str(path)), Image.open(path) as picture:
        picture.load()
        return picture


def stack(pictures: Iterable[Any], what: str, settings: Data) -> tuple[np.ndarray, tuple[str, ...]]:
    """Pictures of Pillow as uint8 [N, H, W, C], in colour if one is, in the size that was asked for; and notes."""
    converted, sizes, modes = list[Any](), dict[tuple[int, int], None](), dict[str, None]()
    for i, picture in enumerate(pictures):
        require(picture is not None, 'dataset', f'{what} has no picture at number {i}')
        sizes[picture.size], modes[picture.mode] = None, None
        deep = picture.mode.startswith(('I', 'F'))
        require(not deep, 'dataset', f'{what} has a picture in mode {picture.mode}; it must have 8 bits a channel')
        kept = picture.convert(GREY if picture.mode in ('1', GREY, 'LA') else COLOUR)
        converted.append(kept.resize(settings.image_size[::-1]) if settings.image_size else kept)
    (width, height), *others = sizes
    differ = f'{what} has pictures of {height}×{width} and {others[0][1]}×{others[0][0]}' if others else ''
    require(not others or settings.image_size, 'image_size', f'() is not allowed: {differ}; give one (height, width)')
    colour = any(picture.mode == COLOUR for picture in converted)
    arrays = [np.asarray(picture.convert(COLOUR) if colour else picture) for picture in converted]
    notes = []
    if settings.image_size and (others or (height, width) != settings.image_size):
        notes.append('pictures are resized to {}×{}'.format(*settings.image_size))
    if set(modes) - {GREY, COLOUR} or len(modes) > 1:
        notes.append(f'pictures in {", ".join(modes)} are taken as {COLOUR if colour else GREY}')
    return np.stack(arrays), tuple(notes)
