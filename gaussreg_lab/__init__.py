"""gaussreg_lab: how far does a network's output move when its input, or its weights, are jolted?

The table of contents. What a network is trained with is imported at once; the page, which needs
matplotlib and ipywidgets, and the table of all methods when they are first asked for, so that
`import gaussreg_lab` costs no more than `import torch`.
"""

from importlib import import_module as _import_module

# the worst jolt of one image, and training against it
from gaussreg_lab.attacks import AdversarialLoss, fgm, pgm, wrm

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

# how steeply the loss rises around the weights: to second order
from gaussreg_lab.curvature import TopEigenvalue, curvature, hessian_map, top_eigenvalue

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
    relu_mean,
    relu_mean_and_var,
    relu_var,
)

# penalties on the Jacobian
from gaussreg_lab.gradients import DataGrad, DifferenceReg, FrobReg, JacReg, Penalized, SpectReg

# linear maps: layers, Jacobians, their singular values
from gaussreg_lab.layer_maps import circular_singular_values, layer_map

# a Gaussian through a whole network, in several ways, and Monte Carlo as their judge
from gaussreg_lab.layer_moments import known_layers, layer_moments
from gaussreg_lab.linear_map import (
    LinearMap,
    affine_map,
    jacobian_map,
    lanczos,
    matrix_of,
    power_iteration,
    random_start,
)
from gaussreg_lab.linearization import first_relu_mean, linearize, linearize_smoothed, two_stage

# how far a whole network can move its output
from gaussreg_lab.lipschitz import layer_gains, lipschitz_bound, margin_scale
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

# the normal distribution itself
from gaussreg_lab.normal import normal_cdf, normal_density

# socket 2: an optimizer that jolts the weights
from gaussreg_lab.perturbation import AMP

# layer by layer, and the judge of elementwise moments
from gaussreg_lab.propagation import Step, layer_by_layer, propagate
from gaussreg_lab.quadrature import expectation

# results recorded earlier
from gaussreg_lab.records import Average, Summary, averages, recorded, summaries

# how well a network holds
from gaussreg_lab.robustness import (
    accuracy,
    accuracy_under_noise,
    folds_equivalent,
    gaussian_robustness,
    margins,
    noise_curve,
)
from gaussreg_lab.sampling import SampledMoments, sample_moments

# many runs of one function: the seed of a setting
from gaussreg_lab.settings import seed_of

# how steeply the loss rises around the weights: in a ball, along a line
from gaussreg_lab.sharpness import Sharpness, filter_direction, loss_slice, loss_surface, sharpness

# socket 3: caps on operator norms, as parametrizations
from gaussreg_lab.spectral import SpectralPenalty, cap_network, cap_spectral_norm, operator_norm

# many runs of one function: the file that keeps them, and the sweep
from gaussreg_lab.store import Run, stored_runs
from gaussreg_lab.sweep import sweep

# the training loop
from gaussreg_lab.training import History, fit

__version__ = "0.1.0"

_ON_DEMAND = {
    # every method of the course in one table
    "METHODS": "methods",
    "Method": "methods",
    "together": "methods",
    "Protocol": "comparison",
    "compare": "comparison",
    "noise_curves": "comparison",
    "trained_networks": "comparison",
    "cached": "cache",
    "cache_folder": "cache",
    # the page: sliders, figures, exercises
    "check": "exercises",
    "predict": "exercises",
    "progress": "exercises",
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
    "AMP",
    "METHODS",
    "AdversarialLoss",
    "AnalyticalMomentLoss",
    "Average",
    "DataGrad",
    "DifferenceReg",
    "ExpectedOutputLoss",
    "FrobReg",
    "Gaussian",
    "History",
    "Images",
    "JacReg",
    "LinearMap",
    "Loss",
    "MaxMoments",
    "Method",
    "NoisyLoss",
    "Normalize",
    "Penalized",
    "Protocol",
    "Run",
    "SampledMoments",
    "SecondOrderLoss",
    "Sharpness",
    "SpectReg",
    "SpectralPenalty",
    "Split",
    "Step",
    "Summary",
    "TopEigenvalue",
    "accuracy",
    "accuracy_under_noise",
    "affine_map",
    "averages",
    "batches",
    "bivariate_normal_cdf",
    "cache_folder",
    "cached",
    "cap_network",
    "cap_spectral_norm",
    "check",
    "check_environment",
    "choice",
    "cifar10",
    "cifar_convnet",
    "circular_singular_values",
    "class_probabilities",
    "compare",
    "cross_entropy",
    "curvature",
    "digits",
    "expectation",
    "explore",
    "fashion_mnist",
    "fgm",
    "filter_direction",
    "first_relu_mean",
    "fit",
    "folds_equivalent",
    "gaussian_robustness",
    "gelu_mean",
    "hessian_map",
    "jacobian_map",
    "known_layers",
    "lanczos",
    "larger_of_two",
    "layer_by_layer",
    "layer_gains",
    "layer_map",
    "layer_moments",
    "leaky_relu_mean",
    "leaky_relu_var",
    "lenet",
    "lenet8",
    "linearize",
    "linearize_smoothed",
    "lipschitz_bound",
    "loss_slice",
    "loss_surface",
    "margin_scale",
    "margins",
    "matrix_of",
    "mlp",
    "mnist",
    "new_figure",
    "noise_curve",
    "noise_curves",
    "normal_cdf",
    "normal_density",
    "operator_norm",
    "pgm",
    "power_iteration",
    "predict",
    "progress",
    "propagate",
    "random_start",
    "recorded",
    "relu_covariance",
    "relu_covariance_centred",
    "relu_covariance_gate",
    "relu_covariance_hermite",
    "relu_mean",
    "relu_mean_and_var",
    "relu_var",
    "sample_moments",
    "sampled_class_probabilities",
    "sampled_cross_entropy",
    "second_order_cross_entropy",
    "seed_of",
    "setup",
    "sharpness",
    "show",
    "slider",
    "stored_runs",
    "summaries",
    "sweep",
    "tick",
    "together",
    "top_eigenvalue",
    "trained_networks",
    "two_moons",
    "two_rings",
    "two_stage",
    "weighted_sum",
    "whole_slider",
    "wrm",
]


def __getattr__(name: str) -> object:
    if name in _ON_DEMAND:
        return getattr(_import_module(f"gaussreg_lab.{_ON_DEMAND[name]}"), name)
    if name in _ON_DEMAND.values():  # the modules themselves, as those that are imported at once
        return _import_module(f"gaussreg_lab.{name}")
    raise AttributeError(f"module 'gaussreg_lab' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_ON_DEMAND])
