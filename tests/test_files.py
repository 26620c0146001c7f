"""Files are whole, whatever happens while they are written."""

import os
from pathlib import Path

import pytest

from bsgap import files
from bsgap.errors import UserError


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / 'run.json'
    for content in ({'name': 'Größe', 'stages': [{'length': 2.0}]}, {}):
        files.write_json(path, content)
        assert files.read_json(path) == content
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ('content', 'says'),
    [
        (b'{"name": "a"', 'is damaged: Expecting'),
        (b'', 'is damaged: Expecting value'),
        (b'\xff\xfe', 'is damaged: '),
        (b'{"name": "a"}', r"is damaged: \['seed'\] missing"),
        (b'["name", "seed"]', 'is damaged: '),
        (b'5', 'is damaged: '),
        (None, 'is damaged: .*No such file'),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes | None, says: str) -> None:
    if content is not None:
        (tmp_path / 'run.json').write_bytes(content)
    with pytest.raises(UserError, match=f'workdir: {tmp_path}/run.json {says}') as error:
        files.read_json(tmp_path / 'run.json', 'name', 'seed')
    assert '\n' not in str(error.value)
    assert str(error.value).endswith('restore it or use another workdir')


def test_a_process_that_is_killed_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / 'metrics.csv'
    files.replace(path, 'old')

    def die(*_: object) -> None:
        assert path.read_text() == 'old'
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, 'replace', die)
        with pytest.raises(KeyboardInterrupt):
            files.replace(path, 'new')
    assert path.read_text() == 'old'
    (left,) = set(tmp_path.iterdir()) - {path}
    assert left.name.startswith('.')  # no glob of the package finds it
    assert left.name.endswith(f'.{os.getpid()}')  # two processes never write into the same one
    files.replace(path, 'new')
    assert path.read_text() == 'new'
