"""The texts of an exported entry: its entry.py, with the module it holds, and its request.md.

RobustBench renames the keys of a checkpoint: it cuts as many first characters as "module." and
"model." have from every key that contains them anywhere, and puts "model." before all keys for
ImageNet. So keys are stored without dots, and an added prefix is taken off on loading.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from art_lfr.errors import UsageError


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
    shape: tuple[int, ...],
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
        shape=shape,
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
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is not factory:
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
