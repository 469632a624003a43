"""LFR in a LightningModule: the loss alone changes. Needs neither ART nor an attack library."""

import lightning
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from art_lfr import LFRLoss, local_flatness
from art_lfr.data import digits
from art_lfr.models import digits_cnn

EPS, EPOCHS, WARMUP = 0.1, 10, 4


class RobustClassifier(lightning.LightningModule):
    """A network for digits that is trained with LFR."""

    def __init__(self) -> None:
        super().__init__()
        self.model = digits_cnn()

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        ramp = min(1.0, (self.current_epoch + 1) / WARMUP)  # or the network may collapse
        # The radius is that of the full eps: the penalty's weight, lam / (2 radius), rises too.
        objective = LFRLoss(eps=ramp * EPS, lam=ramp * EPS / 2, radius=EPS / 4, steps=3)
        terms = objective(self.model, *batch)  # <- was the cross-entropy
        self.log_dict({"clean loss": terms.clean, "flatness": terms.flatness}, prog_bar=True)
        return terms.total

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.model.parameters(), lr=0.05, momentum=0.9)


lightning.seed_everything(0)
data = digits()
train = TensorDataset(torch.tensor(data.x_train), torch.tensor(data.y_train))
trainer = lightning.Trainer(
    max_epochs=EPOCHS, accelerator="cpu", logger=False, enable_checkpointing=False
)
module = RobustClassifier()
trainer.fit(module, DataLoader(train, batch_size=64, shuffle=True))

model = module.model.eval()
x, y = torch.tensor(data.x_test), torch.tensor(data.y_test)
print(f"accuracy: {100 * (model(x).argmax(dim=1) == y).float().mean():.1f} %")
print(f"mean local flatness: {local_flatness(model, x, y, eps=EPS).mean():.3f}")
