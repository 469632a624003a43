"""What an entry of RobustBench's leaderboard is made of.

Its figures in a folder `model_info`; the module in its checkpoint; entry.py and request.md.

RobustBench renames the keys of a checkpoint: it cuts as many first characters as "module." and
"model." have from every key that contains them anywhere, and puts "model." before all keys for
ImageNet. So keys are stored without dots, and an added prefix is taken off on loading.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import os
from collections.abc import Callable, Mapping
from fractions import Fraction
from operator import attrgetter
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from robustbench.utils import ModelInfo
from torch import nn

from art_lfr.errors import UsageError
from art_lfr.storage.files import write_atomically


class EntryModel(nn.Module):
    """Images in [0, 1] to logits: the affine map onto the network's own input, then the network.

    logits = network(shift + scale * images), shift and scale one number or one for each channel.
    """

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, network: nn.Module, scale: torch.Tensor, shift: torch.Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map (N, C, H, W) in [0, 1] to logits."""
        logits: torch.Tensor = self.network(self.shift + self.scale * images)
        return logits

    def safe_state(self) -> dict[str, torch.Tensor]:
        """The state under keys without dots: "%" as "%25", "." as "%2E"."""
        return {
            key.replace("%", "%25").replace(".", "%2E"): value.detach().cpu().clone()
            for key, value in self.state_dict().items()
        }

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Load `safe_state`, or keys with dots, with or without the prefix that is put before."""
        plain = {
            key.removeprefix("model.").replace("%2E", ".").replace("%25", "%"): value
            for key, value in state_dict.items()
        }
        return super().load_state_dict(plain, strict, assign)


# The same module again, so that an entry needs nothing of this package.
ENTRY = '''"""{title}: an entry for RobustBench. Importing this module registers the model.

    import entry
    from robustbench.utils import load_model

    model = load_model({name!r}, model_dir="models", dataset={dataset!r}, threat_model={threat!r})
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

try:
    import robustbench
except ImportError:  # `autoattack` is not on PyPI; art-lfr stands in for it
    import art_lfr.robustbench

from robustbench.model_zoo import model_dicts
from robustbench.model_zoo.enums import BenchmarkDataset, ThreatModel

{imports}

{source}

def make() -> nn.Module:
    """The network, with the weights that the checkpoint replaces."""
    return EntryModel({factory}(), torch.zeros({shape}), torch.zeros({shape}))


models = model_dicts[BenchmarkDataset({dataset!r})].setdefault(ThreatModel({threat!r}), {{}})
models[{name!r}] = {{
    "model": make,
    "gdrive_id": "put the id of the uploaded checkpoint here",
}}
'''


def entry_source(
    name: str,
    dataset: str,
    threat: str,
    title: str,
    factory: Callable[[], nn.Module],
    model: EntryModel,
) -> str:
    """The text of entry.py."""
    root, _, rest = factory.__qualname__.partition(".")
    return ENTRY.format(
        name=name,
        dataset=dataset,
        threat=threat,
        title=" ".join(title.split()).replace("\\", " ").replace('"', "'"),
        imports=f"from {factory.__module__} import {root}",
        source=inspect.getsource(EntryModel),
        factory=f"{root}.{rest}" if rest else root,
        shape=tuple(model.scale.shape),
    )


def check_factory(factory: Any, network: nn.Module) -> None:
    """Raise ValueError unless a fresh process can import the factory and fill its network.

    It takes no arguments, lies at the top of an importable module, and its network takes the
    weights of `network`.
    """
    allowed = (
        "a class or function without arguments, of a module that can be imported, that makes the "
        "same network"
    )
    module, name = getattr(factory, "__module__", None), getattr(factory, "__qualname__", "")
    if not callable(factory) or module in (None, "__main__") or "<" in name:
        where = f"{module}.{name}" if name else repr(factory)
        raise UsageError(f"factory is {where}; allowed: {allowed}")
    try:
        importable = attrgetter(name)(importlib.import_module(module))
    except AttributeError:
        importable = None
    if importable is not factory:
        raise UsageError(f"factory is {module}.{name}, which is another object; allowed: {allowed}")
    try:
        factory().load_state_dict(network.state_dict())
    except (TypeError, RuntimeError, AttributeError) as error:
        detail = " ".join(str(error).split())[:200]
        raise UsageError(
            f"factory is {module}.{name}, which does not make the network: {detail}; "
            f"allowed: {allowed}"
        ) from error


REQUEST = """# New model: {title}

**Paper**

- Title: {title}
- Authors: {authors}
- Venue: {venue}
- Link: {link}

**Claim: {name}**

- Architecture: {architecture}
- Data set: {dataset}
- Threat model: {threat}
- eps: {eps}
- Clean accuracy: {clean_acc} %
- Robust accuracy: {robust} %
- Additional data: {additional}
- Forward passes for one prediction: {number_forward_passes}
- Evaluation: standard AutoAttack on all test images (state what differs)
- Checkpoint: `models/{dataset}/{folder}/{name}.pt` (upload it; put its id into entry.py)
- Code: `entry.py`, a module from images in [0, 1] to logits, normalisation inside

**Conditions** (art_lfr.robustbench.check_conditions tests them)

- [ ] gradients with respect to the input are not zero
- [ ] the forward pass is deterministic
- [ ] there is no optimisation loop in the forward pass

**Model zoo**

- [ ] I want to add the model to the model zoo
- [ ] I agree to release it under the MIT license
"""


def request_text(name: str, threat_model: str, information: Mapping[str, Any]) -> str:
    """The text, filled in from the entry's `model_info`."""
    robust = next(
        value
        for key, value in information.items()
        if "_acc" in key and key != "clean_acc" and value
    )
    filled = {
        **information,
        "name": name,
        "title": information["name"],
        "venue": information["venue"] or "unpublished",
        "threat": threat_model,
        "folder": threat_model.removesuffix("_3d"),
        "eps": information["eps"] or "none",
        "robust": robust,
        "additional": "yes" if information["additional_data"] else "no",
    }
    return REQUEST.format(**filled)


def check_entry(directory: str | Path, dataset: str, model_name: str | None) -> None:
    """Raise ValueError before any work where an entry of that name could not be written."""
    for name, value in (("dataset", dataset), ("model_name", model_name)):
        if not isinstance(value, str) or not value or Path(value).name != value:
            raise UsageError(
                f"{name} is {value!r}; allowed with to_disk=True: a name that can be a file's"
            )
    parent = Path(directory)
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise UsageError(
            f"directory is {str(directory)!r}; allowed: a directory that can be written to"
        )


def update_entry(
    directory: str | Path, dataset: str, threat_model: str, model_name: str, fields: dict[str, Any]
) -> Path:
    """Write an entry's JSON, or change these fields in it; the path.

    The fields and their order are RobustBench's; accuracies are per cent, as strings. An `eps` that
    stands there as a fraction ("8/255") of the same value is left so, as the leaderboard shows it.
    """
    path = Path(directory) / dataset / threat_model / f"{model_name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    entry = dataclasses.asdict(ModelInfo(dataset=dataset, **fields))
    if path.exists():
        old = json.loads(path.read_text())
        if _same_number(old.get("eps"), entry["eps"]):
            entry["eps"] = None
        entry = old | {key: value for key, value in entry.items() if value is not None}
    write_atomically(path, json.dumps(entry, indent=2))
    return path


def per_cent(share: float) -> str:
    """An accuracy as the leaderboard has it."""
    return str(round(share * 100, 2))


def read_reference(directory: str | Path, dataset: str) -> dict[tuple[str, int], float] | None:
    """AlexNet's accuracy under each (corruption, severity), or None where no file has it."""
    path = _unaggregated(directory, dataset)
    if not path.exists():
        return None
    table = _read_table(path)
    rows = table[table.index == "AlexNet"]
    if not len(rows):
        return None
    keys: Any = table.columns
    return {key: float(value) for key, value in zip(keys, rows.iloc[-1].tolist(), strict=True)}


def append_unaggregated(
    directory: str | Path,
    dataset: str,
    model_name: str,
    accuracies: Mapping[tuple[str, int], float],
) -> None:
    """Add a model's row of accuracies under each corruption to RobustBench's table of them."""
    path = _unaggregated(directory, dataset)
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame(dict(accuracies), index=[model_name])
    if path.exists():
        table = pd.concat([_read_table(path), table])
    write_atomically(path, table.to_csv())


def _unaggregated(directory: str | Path, dataset: str) -> Path:
    return Path(directory) / dataset / "corruptions" / "unaggregated_results.csv"


def _read_table(path: Path) -> pd.DataFrame:
    table = pd.read_csv(path, header=[0, 1], index_col=0)
    keys: Any = table.columns
    table.columns = pd.MultiIndex.from_tuples([(name, int(severity)) for name, severity in keys])
    return table


def _same_number(text: object, value: float | None) -> bool:
    """Whether a string holds, as a decimal or a fraction, this number."""
    if not isinstance(text, str) or value is None:
        return False
    try:
        return abs(float(Fraction(text.replace(" ", ""))) - value) <= 1e-6 * abs(value)
    except (ValueError, ZeroDivisionError):
        return False
