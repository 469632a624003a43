"""What a launcher leaves where accelerate takes its processes for unrelated ones."""

from __future__ import annotations

import accelerate

from art_lfr.core.processes import Processes

accelerate.PartialState()
Processes()
