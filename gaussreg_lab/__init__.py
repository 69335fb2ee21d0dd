"""gaussreg_lab: how far does a network's output move when its input, or its weights, are jolted?

The table of contents. What needs only torch is imported at once; what needs matplotlib or
ipywidgets is imported when it is first asked for, so that `import gaussreg_lab` costs no more
than `import torch`.
"""

from importlib import import_module as _import_module

# two Gaussians at once: through a ReLU, and the larger of them
from gaussreg_lab.covariance import (
    MaxMoments,
    bivariate_normal_cdf,
    larger_of_two,
    relu_covariance,
    relu_covariance_centred,
    relu_covariance_gate,
    relu_covariance_hermite,
)

# data and networks
from gaussreg_lab.datasets import (
    Images,
    Split,
    batches,
    cifar10,
    digits,
    fashion_mnist,
    mnist,
    two_moons,
    two_rings,
)

# a Gaussian through one elementwise map, in closed form, and its judge
from gaussreg_lab.gaussian import (
    Gaussian,
    gelu_mean,
    leaky_relu_mean,
    leaky_relu_var,
    normal_cdf,
    normal_density,
    relu_mean,
    relu_var,
)

# a Gaussian through a whole network, in several ways, and Monte Carlo as their judge
from gaussreg_lab.layer_moments import known_layers, layer_moments
from gaussreg_lab.linearization import first_relu_mean, linearize, linearize_smoothed, two_stage
from gaussreg_lab.logits import (
    class_probabilities,
    sampled_class_probabilities,
    sampled_cross_entropy,
    second_order_cross_entropy,
)

# socket 1: losses (model, x, y) -> scalar
from gaussreg_lab.losses import Loss, NoisyLoss, cross_entropy, weighted_sum
from gaussreg_lab.models import Normalize, cifar_convnet, lenet, lenet8, mlp
from gaussreg_lab.moment_losses import AnalyticalMomentLoss, ExpectedOutputLoss, SecondOrderLoss
from gaussreg_lab.propagation import Step, layer_by_layer, propagate
from gaussreg_lab.quadrature import expectation

# results recorded earlier
from gaussreg_lab.records import Summary, recorded, summaries

# how well a network holds
from gaussreg_lab.robustness import (
    accuracy,
    accuracy_under_noise,
    folds_equivalent,
    gaussian_robustness,
    noise_curve,
)
from gaussreg_lab.sampling import SampledMoments, sample_moments

# the training loop
from gaussreg_lab.training import History, fit

__version__ = "0.1.0"

# the page: sliders, figures, exercises
_ON_DEMAND = {
    "check": "exercises",
    "predict": "exercises",
    "explore": "panels",
    "slider": "controls",
    "whole_slider": "controls",
    "choice": "controls",
    "tick": "controls",
    "new_figure": "figures",
    "show": "figures",
    "setup": "environment",
    "check_environment": "environment",
}

__all__ = [
    "AnalyticalMomentLoss",
    "ExpectedOutputLoss",
    "Gaussian",
    "History",
    "Images",
    "Loss",
    "MaxMoments",
    "NoisyLoss",
    "Normalize",
    "SampledMoments",
    "SecondOrderLoss",
    "Split",
    "Step",
    "Summary",
    "accuracy",
    "accuracy_under_noise",
    "batches",
    "bivariate_normal_cdf",
    "check",
    "check_environment",
    "choice",
    "cifar10",
    "cifar_convnet",
    "class_probabilities",
    "cross_entropy",
    "digits",
    "expectation",
    "explore",
    "fashion_mnist",
    "first_relu_mean",
    "fit",
    "folds_equivalent",
    "gaussian_robustness",
    "gelu_mean",
    "known_layers",
    "larger_of_two",
    "layer_by_layer",
    "layer_moments",
    "leaky_relu_mean",
    "leaky_relu_var",
    "lenet",
    "lenet8",
    "linearize",
    "linearize_smoothed",
    "mlp",
    "mnist",
    "new_figure",
    "noise_curve",
    "normal_cdf",
    "normal_density",
    "predict",
    "propagate",
    "recorded",
    "relu_covariance",
    "relu_covariance_centred",
    "relu_covariance_gate",
    "relu_covariance_hermite",
    "relu_mean",
    "relu_var",
    "sample_moments",
    "sampled_class_probabilities",
    "sampled_cross_entropy",
    "second_order_cross_entropy",
    "setup",
    "show",
    "slider",
    "summaries",
    "tick",
    "two_moons",
    "two_rings",
    "two_stage",
    "weighted_sum",
    "whole_slider",
]


def __getattr__(name: str) -> object:
    if name in _ON_DEMAND:
        return getattr(_import_module(f"gaussreg_lab.{_ON_DEMAND[name]}"), name)
    raise AttributeError(f"module 'gaussreg_lab' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_ON_DEMAND])
