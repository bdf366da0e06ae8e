"""What the report page shows, in its order: the paper's tables and figures, then what belongs beside them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Item:
    """One thing the paper shows, or that belongs beside it.

    `tables` and `figures` are the names of the files it is made of, `script` the one that writes them.
    """

    title: str
    place: str
    claim: str
    tables: tuple[str, ...] = ()
    figures: tuple[str, ...] = ()
    script: str = ""

    @property
    def anchor(self) -> str:
        return (*self.tables, *self.figures)[0]


BEYOND = "Beyond the paper"

ITEMS = (
    Item(
        "Capacity and training method",
        "Figure 4 and its table",
        "Wider networks withstand one-step attacks better; networks trained on FGSM examples fall to PGD all the same; "
        "networks trained on PGD examples withstand it, the better the wider, and small ones may not learn at all.",
        tables=("accuracy",),
        figures=("capacity",),
        script="accuracy_table",
    ),
    Item(
        "One robust network against every adversary",
        "Tables 1 and 2",
        "PGD is the strongest first-order adversary: nothing else, from the network itself or from another one, does "
        "much worse. MNIST keeps 89.3% and CIFAR10 45.8% against the strongest.",
        tables=("adversaries",),
        script="adversaries_table",
    ),
    Item(
        "The loss along PGD",
        "Figure 1",
        "From every random start the loss rises and plateaus after a few iterations, at clustered values, far lower on "
        "the adversarially trained network.",
        figures=("loss_trajectories",),
        script="loss_histograms",
    ),
    Item(
        "Where PGD ends",
        "Figure 2",
        "Over 100,000 random starts the losses of the maxima are concentrated and have no outliers, and are far lower "
        "on the adversarially trained network.",
        figures=("loss_histograms",),
        script="loss_histograms",
    ),
    Item(
        "The maxima that PGD finds",
        "Text after Figure 2",
        "They are distinct: as far apart as random points of the ball and at angles close to 90°; between two of them "
        "the loss is lower by a constant factor, and still far above that of a random point.",
        tables=("maxima", "segments"),
        figures=("segments",),
        script="loss_histograms",
    ),
    Item(
        "Training loss",
        "Figure 5",
        "The loss on adversarial examples falls steadily during training: the saddle point problem can be optimised.",
        figures=("training_loss",),
        script="training_curves",
    ),
    Item(
        "Accuracy against eps",
        "Figure 6",
        "For eps up to that of the training the accuracy is equal or better. In l_2 a gradient-free attack finds far "
        "less robustness on MNIST than PGD does: its gradients are masked.",
        tables=("epsilon_linf", "epsilon_l2"),
        figures=("epsilon",),
        script="epsilon_curves",
    ),
    Item(
        "Transfer between networks",
        "Tables 3 and 4",
        "Examples made on one network fool another less the wider the networks are and the stronger the adversary they "
        "were trained against. Rows are targets, columns the networks the examples were made on.",
        tables=("transfer_fgsm", "transfer_pgd"),
        script="transfer_tables",
    ),
    Item(
        "White-box accuracy of the six networks",
        "Table 5",
        "Only the networks trained on PGD examples keep an accuracy against PGD, however well the others do on FGSM.",
        tables=("white_box",),
        script="transfer_tables",
    ),
    Item(
        "Loss along own and transferred perturbations",
        "ICLR Figure 7",
        "From an image to its adversarial examples, its own or an independent copy's, the loss of the naturally "
        "trained network climbs more than ten times as high as that of the adversarially trained one.",
        figures=("directions",),
        script="transfer_tables",
    ),
    Item(
        "Two trainings of one network",
        "ICLR Figure 8",
        "The input gradients of two independently trained networks are correlated and attacks transfer between them; "
        "both much less after training on FGSM examples.",
        tables=("transfer_copy",),
        figures=("angles",),
        script="transfer_tables",
    ),
    Item(
        "Inside the robust MNIST network",
        "ICLR Figures 9 and 10",
        "It uses 3 of its 32 first filters, each with a single weight, as thresholds; the biases of its output layer "
        "are far from uniform.",
        tables=("filters",),
        figures=("filters", "output_layer"),
        script="filters",
    ),
    Item(
        "Signs of masked gradients",
        BEYOND,
        "Robustness that only hides from gradients shows: in attacks that get weaker with more steps, restarts or eps, "
        "in transferred attacks that beat the white box, in gradients of zero.",
        tables=("diagnostics",),
        script="diagnostics",
    ),
    Item(
        "Training methods beside each other",
        BEYOND,
        "Adversarial examples made once (static), FGSM with a random start and TRADES beside the paper's methods, each "
        "at its last checkpoint and at the one that did best on held-out images.",
        tables=("methods",),
        script="methods_table",
    ),
    Item(
        "Robust overfitting",
        BEYOND,
        "Accuracy under attack on held-out images can fall while the training goes on.",
        figures=("robust_overfitting",),
        script="training_curves",
    ),
)
