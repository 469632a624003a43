"""Says at the end of the interpreter whether its processes are still a group: `group: 0` or `1`."""

from __future__ import annotations

import atexit
import os

import torch

from art_lfr.core.processes import Processes

# Bound here: at the exit the module may be gone. In one call: two processes write at once.
group = torch.distributed
atexit.register(lambda: os.write(1, b"group: %d\n" % group.is_initialized()))
Processes().wait()
Processes().wait()
