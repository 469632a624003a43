"""torchattacks in ART, and ART in torchattacks.

`TorchattacksEvasion` makes an evasion attack of ART out of any torchattacks object;
`LocalFlatnessAttack` and `ARTAttack` are attacks of torchattacks; `unit_model` is a classifier as
these libraries take a model.
"""

from art_lfr.attacks.evasion import unit_model
from art_lfr.torchattacks.evasion import TorchattacksEvasion
from art_lfr.torchattacks.flatness import LocalFlatnessAttack
from art_lfr.torchattacks.reverse import ARTAttack

__all__ = ["ARTAttack", "LocalFlatnessAttack", "TorchattacksEvasion", "unit_model"]
