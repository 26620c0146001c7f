"""Draws what a terminal shows of the smoke study, docs/terminal.svg: python docs/terminal.py"""

import io
import os
import pty
import re
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT, WIDTH = Path(__file__).resolve().parents[1], 96
COMMAND = 'python launch.py --config=experiments/mnist.py:smoke'


def shown(command: list[str]) -> str:
    """What a command leaves on a terminal."""
    written = bytearray()

    def read(file: int) -> bytes:
        written.extend(data := os.read(file, 1024))
        return data

    os.environ |= {'COLUMNS': str(WIDTH), 'TERM': 'xterm-256color'}
    if code := pty.spawn(command, read):
        sys.exit(f'it ended with {code}')
    lines, row = [''], 0
    for part in re.split(r'(\r?\n|\x1b\[\d*[A-Z]|\x1b\[\?\d+[a-z]|\r)', written.decode()):
        if part.endswith('\n'):
            row += 1
            lines += [''] * (row == len(lines))
        elif re.fullmatch(r'\x1b\[\d*A', part):
            row -= int(part[2:-1] or 1)
        elif re.fullmatch(r'\x1b\[\d*K', part):
            lines[row] = ''
        elif not part.startswith('\r') and not re.match(r'\x1b\[\?', part):
            lines[row] += part
    return '\n'.join(lines)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        workdir = f'{folder}/mnist-smoke'
        text = shown([sys.executable, str(ROOT / 'launch.py'), *COMMAND.split()[2:], f'--workdir={workdir}'])
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(f'$ {COMMAND}\n' + text.replace(workdir, 'runs/mnist-smoke').rstrip()))
    svg = re.sub(r'@font-face \{.*?\}', '', console.export_svg(title='bsgap', unique_id='bsgap'), flags=re.S)
    (ROOT / 'docs' / 'terminal.svg').write_text(svg.replace('Fira Code', 'monospace'), encoding='utf-8')


if __name__ == '__main__':
    os.chdir(ROOT)
    main()
