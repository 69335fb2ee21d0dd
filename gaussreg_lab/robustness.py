"""How well a trained network holds: accuracy, agreement and robustness under input noise.

    accuracy under noise  = P( argmax f(x + sigma n) = y ),             n ~ N(0, I), over the given images
    agreement under noise = P( argmax f(x + sigma n) = argmax f(x) )    the labels play no part
    Gaussian robustness   = mean agreement over noise levels from 0 to 0.5
    margin                = f_y(x) - max of the other logits

The last is the score of Alfadly et al. A classifier that always says "3" scores 1: it is a measure of
steadiness, to be read beside the accuracy and never alone.

Each draw disturbs every image once; several draws give a standard error. It says how much the
number depends on the noise, not on which images happen to be in the test set. All networks and
all noise levels are judged by the same draws (common random numbers), so that differences
between them come from the networks.

Source: Alfadly, Bibi, Ghanem, "Analytical Moment Regularizer for Gaussian Robust Networks", arXiv
1904.11005 (2019), and its code, with noise in pixel units instead of three different ones.
Lesson: notebooks/00_start_here.ipynb
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gaussreg_lab.datasets import expect_pairs
from gaussreg_lab.losses import expect_sigma
from gaussreg_lab.models import in_eval_mode
from gaussreg_lab.records import standard_error

BATCH = 1000  # images at a time: a bounded memory whatever the size of the test set


class Estimate(NamedTuple):
    """A mean over independent draws with its standard error."""

    mean: float
    standard_error: float


class NoiseCurve(NamedTuple):
    """Accuracy against the noise level: three tensors of one length. sigmas in pixel units."""

    sigmas: Tensor
    mean: Tensor
    standard_error: Tensor


def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Share of the images x whose largest logit is the one of their label y.

    x: (count, ...) in [0, 1]; y: (count,). The model is put in eval mode for the time of the call.
    Raises ValueError when x and y differ in length or are empty.

    >>> accuracy(nn.Flatten(), torch.eye(4), torch.tensor([0, 1, 2, 0]))
    0.75
    """
    expect_pairs(x, y)
    return _share_correct(model, x, y)


def accuracy_under_noise(
    model: nn.Module, x: Tensor, y: Tensor, sigma: float, draws: int = 5, seed: int = 0
) -> Estimate:
    """Accuracy on x + sigma * n, n ~ N(0, I), as a mean over `draws` draws of the noise.

    sigma: standard deviation in pixel units; the noise is not clipped. The standard error is
    nan for a single draw. Raises ValueError for sigma < 0 or NaN, draws < 1, and as `accuracy`.

    >>> accuracy_under_noise(nn.Flatten(), torch.eye(4), torch.arange(4), sigma=0.0)
    Estimate(mean=1.0, standard_error=0.0)
    """
    expect_sigma(sigma)
    expect_pairs(x, y)
    if draws < 1:
        raise ValueError(f"Expected draws >= 1, got {draws}")
    generator = torch.Generator().manual_seed(seed)
    shares = torch.empty(draws, dtype=torch.float64)
    for draw in range(draws):
        noise = torch.randn(x.shape, generator=generator).to(x)
        shares[draw] = _share_correct(model, x + sigma * noise, y)
    return Estimate(shares.mean().item(), standard_error(shares).item())


def noise_curve(
    model: nn.Module, x: Tensor, y: Tensor, sigmas: Sequence[float], draws: int = 5, seed: int = 0
) -> NoiseCurve:
    """`accuracy_under_noise` at each of `sigmas`, by the same draws at every level.

    >>> curve = noise_curve(nn.Flatten(), torch.eye(4), torch.arange(4), sigmas=[0.0, 10.0])
    >>> bool(curve.mean[1] < curve.mean[0])
    True
    """
    sigmas = [float(sigma) for sigma in sigmas]
    if not sigmas:
        raise ValueError("Expected at least one sigma, got none")
    points = [accuracy_under_noise(model, x, y, sigma, draws, seed) for sigma in sigmas]
    means, errors = zip(*points, strict=True)
    return NoiseCurve(torch.tensor(sigmas), torch.tensor(means), torch.tensor(errors))


def gaussian_robustness(
    model: nn.Module, x: Tensor, largest: float = 0.5, levels: int = 30, draws: int = 1, seed: int = 0
) -> Estimate:
    """Mean agreement with the noise-free prediction over noise levels from 0 to `largest`, in [0, 1].

    The area under the curve of agreement (trapezoids between `levels` equal steps), divided by
    `largest`. largest: in pixel units. Defaults as in the paper's code, one draw at each level; the
    standard error is over draws, nan for one. The paper draws noise of a fixed length, here it is
    Gaussian: the same in many dimensions.
    Raises ValueError for largest <= 0, levels < 2, draws < 1, no images.

    >>> gaussian_robustness(nn.Flatten(), torch.eye(4), draws=2).mean > 0.5
    True
    """
    expect_sigma(largest)
    if largest == 0 or levels < 2 or draws < 1:
        raise ValueError(
            f"Expected largest > 0, levels >= 2 and draws >= 1, got {largest}, {levels} and {draws}"
        )
    predicted = predictions(model, x)
    generator = torch.Generator().manual_seed(seed)
    sigmas = torch.linspace(0, largest, levels, dtype=torch.float64)
    agreement = torch.empty(draws, levels, dtype=torch.float64)
    for draw in range(draws):
        for level, sigma in enumerate(sigmas.tolist()):
            noise = torch.randn(x.shape, generator=generator).to(x)
            agreement[draw, level] = (predictions(model, x + sigma * noise) == predicted).double().mean()
    areas = torch.trapezoid(agreement, sigmas, dim=1) / largest
    return Estimate(areas.mean().item(), standard_error(areas).item())


def folds_equivalent(score: float, folds: Sequence[float], scores: Sequence[float]) -> float:
    """How many augmentation folds reach `score`, read off a measured curve.

    folds: rising numbers of noisy copies of the training set, the first usually 0; scores: what
    training with each of them reached. Between two points the curve is a straight line, and the
    first point where it reaches the score counts. The first of `folds` if that is enough, inf if
    none of them is: nothing is said about folds that were not measured.
    Raises ValueError for folds that do not rise, other lengths, or numbers that are not finite.

    >>> folds_equivalent(0.875, folds=[0, 1, 5], scores=[0.5, 0.75, 1.0])
    3.0
    """
    if len(folds) != len(scores) or len(folds) == 0:
        raise ValueError(f"Expected as many folds as scores, at least one, got {len(folds)}, {len(scores)}")
    if any(after <= before for before, after in pairwise(folds)):
        raise ValueError(f"Expected folds that rise, got {list(folds)}")
    if not all(math.isfinite(it) for it in (score, *folds, *scores)):
        raise ValueError(f"Expected finite numbers, got score {score}, folds {folds}, scores {scores}")
    points = list(zip(map(float, folds), scores, strict=True))
    if points[0][1] >= score:
        return points[0][0]
    for (few, low), (many, high) in pairwise(points):
        if high >= score:
            return few + (many - few) * (score - low) / (high - low)
    return math.inf


def margins(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """By how much the logit of the label leads over the next best one, for each image: shape (count,).

    Negative where the image is misread. To compare networks, divide by `lipschitz.margin_scale`. The model
    in eval mode for the time. Raises ValueError as `accuracy`.

    >>> margins(nn.Flatten(), torch.tensor([[3.0, 1.0], [3.0, 1.0]]), torch.tensor([0, 1]))
    tensor([ 2., -2.])
    """
    expect_pairs(x, y)
    device = next((weight.device for weight in model.parameters()), x.device)
    leads = []
    with torch.no_grad(), in_eval_mode(model):
        for images, labels in zip(x.split(BATCH), y.cpu().split(BATCH), strict=True):
            z, right = model(images.to(device)).cpu(), labels[:, None]
            others = z.scatter(1, right, -math.inf)
            leads.append(z.gather(1, right).squeeze(1) - others.amax(dim=1))
    return torch.cat(leads)


def predictions(model: nn.Module, x: Tensor) -> Tensor:
    """The class of the largest logit for each image, on the CPU; the model in eval mode for the time.

    x: (count, ...) in [0, 1]. Raises ValueError without images.

    >>> predictions(nn.Flatten(), torch.eye(3))
    tensor([0, 1, 2])
    """
    if len(x) == 0:
        raise ValueError("Expected at least one image, got none")
    device = next((weight.device for weight in model.parameters()), x.device)
    with torch.no_grad(), in_eval_mode(model):
        return torch.cat([model(images.to(device)).argmax(dim=1).cpu() for images in x.split(BATCH)])


def _share_correct(model: nn.Module, x: Tensor, y: Tensor) -> float:
    return int((predictions(model, x) == y.cpu()).sum()) / len(y)
