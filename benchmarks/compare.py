"""`art-lfr compare` where a plan can name the penalties and networks of this folder.

python benchmarks/compare.py benchmarks/robustness/digits.yaml --output DIRECTORY
"""

import sys

from art_lfr.cli.app import main

# Python puts the folder of this file on the path: a plan can say `penalty: variants:CLAMPED`.
sys.exit(main(["compare", *sys.argv[1:]]))
