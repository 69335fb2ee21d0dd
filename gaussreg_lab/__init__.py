"""gaussreg_lab: how far does a network's output move when its input, or its weights, are jolted?

The table of contents. What needs only torch is imported at once; what needs matplotlib or
ipywidgets is imported when it is first asked for, so that `import gaussreg_lab` costs no more
than `import torch`.
"""

from importlib import import_module as _import_module

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

# socket 1: losses (model, x, y) -> scalar
from gaussreg_lab.losses import Loss, NoisyLoss, cross_entropy, weighted_sum
from gaussreg_lab.models import Normalize, cifar_convnet, lenet, lenet8, mlp
from gaussreg_lab.quadrature import expectation

# how well a network holds
from gaussreg_lab.robustness import accuracy, accuracy_under_noise, noise_curve

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
    "Gaussian",
    "History",
    "Images",
    "Loss",
    "NoisyLoss",
    "Normalize",
    "Split",
    "accuracy",
    "accuracy_under_noise",
    "batches",
    "check",
    "check_environment",
    "choice",
    "cifar10",
    "cifar_convnet",
    "cross_entropy",
    "digits",
    "expectation",
    "explore",
    "fashion_mnist",
    "fit",
    "gelu_mean",
    "leaky_relu_mean",
    "leaky_relu_var",
    "lenet",
    "lenet8",
    "mlp",
    "mnist",
    "new_figure",
    "noise_curve",
    "normal_cdf",
    "normal_density",
    "predict",
    "relu_mean",
    "relu_var",
    "setup",
    "show",
    "slider",
    "tick",
    "two_moons",
    "two_rings",
    "weighted_sum",
    "whole_slider",
]


def __getattr__(name: str) -> object:
    if name in _ON_DEMAND:
        return getattr(_import_module(f"gaussreg_lab.{_ON_DEMAND[name]}"), name)
    raise AttributeError(f"module 'gaussreg_lab' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_ON_DEMAND])
