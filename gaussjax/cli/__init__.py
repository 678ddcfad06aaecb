"""The command `gaussjax`: pictures to `.gjx` files and back. Exits 0, 1 for a damaged file, 2 for a mistake.

Standard output has what was asked for and nothing else: the file where it is `-`, one JSON document with `--json`.
"""

from gaussjax.cli.options import parser as parser
from gaussjax.cli.process import main as main
