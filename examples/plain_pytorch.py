"""LFR as a loss in a PyTorch loop of one's own. Needs neither ART nor an attack library."""

import torch

from art_lfr import lfr_loss, local_flatness
from art_lfr.data import digits
from art_lfr.models import digits_cnn

data = digits()
x, y = torch.tensor(data.x_train), torch.tensor(data.y_train)
model = digits_cnn()
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
generator = torch.Generator().manual_seed(0)

epochs, eps, lam = 10, 0.1, 0.1
for epoch in range(epochs):
    # Raise eps and lam slowly, or the network may collapse; the radius is that of the full eps.
    ramp = min(1.0, (epoch + 1) / 4)
    settings = {"eps": ramp * eps, "lam": ramp * lam, "radius": eps / 4, "steps": 3}
    for indices in torch.randperm(len(x), generator=generator).split(64):
        terms = lfr_loss(model, x[indices], y[indices], **settings)
        optimizer.zero_grad()
        terms.total.backward()
        optimizer.step()
    print(f"epoch {epoch + 1}: loss {terms.clean:.3f}, flatness {terms.flatness:.3f}")

flatness = local_flatness(model, torch.tensor(data.x_test), torch.tensor(data.y_test), eps=eps)
print(f"mean local flatness of {len(flatness)} test images: {flatness.mean():.3f}")
