"""Local flatness regularization as an ART trainer."""

from __future__ import annotations

from typing import Any

import numpy as np

from art_lfr.arguments import check_integer, check_number, keywords_of, reject_unknown
from art_lfr.art_data import CleanTermAttack, check_ratio
from art_lfr.augmentation import Augmentation
from art_lfr.classifier import ClassifierAdapter
from art_lfr.fitting import ClassifierTrainer
from art_lfr.options import TrainingOptions
from art_lfr.penalties import Penalty, penalty_for
from art_lfr.processes import Processes
from art_lfr.settings import LFRSettings
from art_lfr.step import Objective
from art_lfr.summary import open_summary
from art_lfr.training import TrainingLoop


class AdversarialTrainerLFRPyTorch(ClassifierTrainer):
    """Train an ART classifier on l(x) + lam * max over the eps-ball of ||grad l||_q.

    The classifier brings the network, the loss, the optimizer, `clip_values` and preprocessing.
    All lengths are in the raw units of x, before preprocessing. Source: Xu, Li, Jiang, Xia,
    "Adversarial Defense via Local Flatness Regularization", ICIP 2020; the finite-difference
    estimator is this package's own.

    Args:
        classifier: A `PyTorchClassifier` (or `HuggingFaceClassifierPyTorch`) with an optimizer.
        norm: p of the ball: np.inf, 2 or 1. The gradient is measured in the dual norm q.
        eps: Radius of the ball, >= 0.
        eps_step: Length of an ascent step. None: the norm's default, a multiple of eps / max_iter.
        max_iter: Ascent steps K, >= 0.
        lam: Weight of the penalty, >= 0. None: the norm's default, a multiple of eps.
        estimator: "finite-difference", or "exact" (double back-propagation, as published).
        radius: Finite-difference radius h. None: the norm's default, a multiple of eps.
        batch_norm: "eval": the penalty's passes use running statistics; "train": their own.
        renew_every: Take the gradient at the point itself, one of the two of an ascent step, in
            every so manieth step only: with 2, 16 gradients instead of 21 for 10 steps. For LFR by
            finite differences. None: the default of the norm, 2 for np.inf, else 1.
        autocast: Run the ascent's layers in bfloat16: faster where the processor has it. What is
            descended is in the model's own type. For LFR and networks of float32.
        warm_start: Start the ascent where that of the epoch before ended for the same sample; one
            or two steps of 0.4 eps will then do (docs/performance.md). For LFR and `fit`, without
            `augment`; takes as much memory as the training data, in checkpoints too.
        warmup_epochs: eps and lam rise linearly over the first epochs of the trainer's life.
        attack: An ART `EvasionAttack`, or a list of which one is drawn for each batch: the clean
            term is taken on its examples; the ball stays centred on the unattacked x.
        ratio: The part of each batch that `attack` replaces, in (0, 1].
        augment: (batch, generator) -> batch, e.g. `art_lfr.augmentation.random_flip`.
        max_grad_norm: Clip the gradient to this l2 norm. `history` has the mean `gradient_norm` of
            each epoch, before the clip, to choose it by.
        penalty: "lfr", or another in its place: "lfr-held", "input-gradient", "cure", "llr",
            "gradalign" (see `art_lfr.penalties`), or a `Penalty` of your own.
        weight_perturbation: Take the gradient at weights moved up the loss by this part of their
            norm (AWP; its authors use 0.005 to 0.01). It takes every outer pass twice.
        max_physical_batch_size: Take larger batches in parts of at most so many samples, whose
            gradients add up: less memory, the same step. BatchNorm sees the parts.
        ema_decay: Average the weights with this decay, in (0, 1); the average is what is
            validated and what `fit` leaves in the classifier.
        best_metric: Leave the weights of the best epoch by this metric (a tuple: the others break
            ties), e.g. ("validation_robust_accuracy", "validation_accuracy").
        patience: Stop after so many epochs without a better `best_metric`.
        monitor_samples: Validation (and training) samples attacked after each epoch.
        seed: Seed of everything random; the global random state is left as found.
        verbose: Show a progress bar.
        summary_writer: TensorBoard: False, True, a path, or a `SummaryWriter`.

    Raises:
        TypeError: For a classifier that is not of PyTorch, or an unknown keyword.
        ValueError: For values out of range, no optimizer, or a preprocessing defence without
            gradients; always before any weight changes.
    """

    def __init__(
        self,
        classifier: Any,
        *,
        norm: float | str = np.inf,
        eps: float = 0.3,
        eps_step: float | None = None,
        max_iter: int = 10,
        lam: float | None = None,
        estimator: str = "finite-difference",
        radius: float | None = None,
        batch_norm: str = "train",
        renew_every: int | None = None,
        autocast: bool = False,
        warm_start: bool = False,
        warmup_epochs: float = 2.0,
        attack: Any = None,
        ratio: float = 1.0,
        augment: Augmentation | None = None,
        max_grad_norm: float | None = None,
        penalty: str | Penalty = "lfr",
        weight_perturbation: float | None = None,
        max_physical_batch_size: int | None = None,
        ema_decay: float | None = None,
        best_metric: str | tuple[str, ...] | None = None,
        patience: int | None = None,
        monitor_samples: int = 256,
        seed: int = 0,
        verbose: bool = True,
        summary_writer: Any = False,
        **unknown: Any,
    ) -> None:
        reject_unknown(type(self).__name__, unknown, TRAINER_KEYWORDS)
        # Under the names of this signature, before the settings see them under the loss's.
        check_number("eps_step", eps_step, low_allowed=False, optional=True)
        check_integer("max_iter", max_iter, low=0)
        settings = LFRSettings(
            eps=eps,
            norm=norm,
            steps=max_iter,
            step_size=eps_step,
            lam=lam,
            estimator=estimator,
            radius=radius,
            batch_norm=batch_norm,
            renew_every=renew_every,
            autocast=autocast,
        )
        options = TrainingOptions(
            warm_start=warm_start,
            warmup_epochs=warmup_epochs,
            augment=augment,
            max_grad_norm=max_grad_norm,
            weight_perturbation=weight_perturbation,
            max_physical_batch_size=max_physical_batch_size,
            ema_decay=ema_decay,
            best_metric=best_metric,
            patience=patience,
            monitor_samples=monitor_samples,
            seed=seed,
            verbose=verbose,
        )
        check_ratio(ratio)
        chosen = penalty_for(
            penalty, lam, estimator=estimator, autocast=autocast, warm_start=warm_start
        )
        self._adapter = adapter = ClassifierAdapter(classifier)
        adapter.check_optimizer()
        super().__init__(classifier)
        processes = Processes()
        processes.check_device(adapter.device)
        self._log = open_summary(summary_writer if processes.main else False)
        self._loop = TrainingLoop(
            Objective(
                adapter.module,
                adapter.criterion,
                adapter.box,
                None if attack is None else CleanTermAttack(attack, ratio, adapter),
                chosen,
                processes,
            ),
            adapter.network,
            adapter.optimizer,
            settings=settings,
            options=options,
        )


TRAINER_KEYWORDS = keywords_of(AdversarialTrainerLFRPyTorch.__init__)
