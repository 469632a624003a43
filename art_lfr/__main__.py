"""`python -m art_lfr` is `art-lfr`."""

import sys

from art_lfr.cli.app import main

sys.exit(main())
