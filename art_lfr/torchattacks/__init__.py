"""torchattacks in ART, and ART in torchattacks.

`TorchattacksEvasion` makes an evasion attack of ART out of any torchattacks object;
`LocalFlatnessAttack` and `ARTAttack` are attacks of torchattacks; `unit_model` is a classifier as
these libraries take a model.
"""

from art_lfr.attacks.evasion import unit_model
from art_lfr.torchattacks.attacks import ARTAttack, LocalFlatnessAttack
from art_lfr.torchattacks.evasion import TorchattacksEvasion

__all__ = ["ARTAttack", "LocalFlatnessAttack", "TorchattacksEvasion", "unit_model"]
