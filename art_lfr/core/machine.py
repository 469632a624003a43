"""The machine that a result was made on."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

import torch

CPU_INFO = Path("/proc/cpuinfo")


def describe_machine() -> str:
    """Processor, its cores, the threads that torch uses, and the GPU where there is one."""
    processor = platform.processor() or platform.machine()
    if CPU_INFO.exists():  # on Linux `platform` knows only the architecture
        names = re.findall(r"^model name\s*:\s*(\S.*)$", CPU_INFO.read_text(), re.MULTILINE)
        processor = f"{names[0].strip()} ({platform.machine()})" if names else processor
    parts = [processor, f"{os.cpu_count()} cores", f"{torch.get_num_threads()} thread(s)"]
    if torch.cuda.is_available():
        parts.append(torch.cuda.get_device_name())
    return ", ".join(parts)
