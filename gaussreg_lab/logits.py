r"""What the softmax makes of Gaussian logits: expected probabilities, expected cross entropy.

For logits z ~ N(m, C), with p = softmax(m):

    E[softmax(z)]_k  ~  softmax( m_k / sqrt(1 + pi C_kk / 8) )              probit mean field
    E[CE(z, y)]      ~  CE(m, y) + 1/2 ( sum_k p_k C_kk - p' C p )          second order
    E[CE(z, y)]      >= CE(m, y)                                            Jensen

Cross entropy is convex in the logits, so its value at the mean is a lower bound of its mean; the
second-order term is the first correction, half the trace of C times the curvature diag(p) - p p'.
None of the integrals has a closed form; drawing logits is cheap, as there are few of them.

Source: probit: MacKay, Neural Computation 4 (1992); second order: Wu et al., "Deterministic Variational
Inference for Robust Bayesian Neural Networks", ICLR (2019).
Lesson: notebooks/03_losses.ipynb
"""

import math

import torch
from torch import Tensor

from gaussreg_lab.gaussian import Gaussian


def class_probabilities(logits: Gaussian) -> Tensor:
    """Probit mean field approximation of E[softmax(z)], shape (batch, classes).

    logits: mean (batch, classes) with var or cov; only the variances matter. Close to the truth
    for standard deviations up to 1, too far from certainty or too near it beyond 2.

    >>> class_probabilities(Gaussian(torch.tensor([[2.0, 0.0]]), var=torch.tensor(0.0)))
    tensor([[0.8808, 0.1192]])
    """
    return (logits.mean / (1 + math.pi / 8 * logits.variances).sqrt()).softmax(dim=-1)


def sampled_class_probabilities(
    logits: Gaussian, count: int = 4000, generator: torch.Generator | None = None
) -> Tensor:
    """E[softmax(z)] from `count` draws of the logits, shape (batch, classes).

    The standard error of each probability is below 1 / (2 sqrt(count)). generator: by default one
    with seed 0.

    >>> sampled_class_probabilities(Gaussian(torch.tensor([[2.0, 0.0]]), var=torch.tensor(0.0)))
    tensor([[0.8808, 0.1192]])
    """
    return draw_logits(logits, count, generator).softmax(dim=-1).mean(dim=0)


def second_order_cross_entropy(logits: Gaussian, y: Tensor) -> Tensor:
    """Second-order approximation of E[CE(z, y)] for each image, shape (batch,).

    y: (batch,) class numbers. Within 1 % for logit standard deviations up to 1, 10 % too large at 2.

    >>> logits = Gaussian(torch.zeros(1, 2), cov=torch.eye(2)[None])
    >>> second_order_cross_entropy(logits, torch.tensor([0]))  # log 2 + (1 - 1/2) / 2
    tensor([0.9431])
    """
    return cross_entropy_of(logits.mean, y) + curvature_trace(logits) / 2


def curvature_trace(logits: Gaussian) -> Tensor:
    """sum_k p_k C_kk - p' C p, the trace of C times the cross entropy's curvature, shape (batch,).

    It is the variance of the logits in directions that change the probabilities, never negative.

    >>> curvature_trace(Gaussian(torch.zeros(1, 2), cov=torch.ones(1, 2, 2)))  # both move alike
    tensor([0.])
    """
    p = logits.mean.softmax(dim=-1)
    if logits.cov is None:
        together = (p.square() * logits.var).sum(dim=-1)
    else:
        together = torch.einsum("bi,bij,bj->b", p, logits.cov, p)
    return (p * logits.variances).sum(dim=-1) - together


def sampled_cross_entropy(
    logits: Gaussian, y: Tensor, count: int = 4000, generator: torch.Generator | None = None
) -> Tensor:
    """E[CE(z, y)] for each image from `count` draws of the logits, shape (batch,).

    >>> sampled_cross_entropy(Gaussian(torch.zeros(1, 2), var=torch.tensor(0.0)), torch.tensor([0]))
    tensor([0.6931])
    """
    drawn = draw_logits(logits, count, generator)
    return cross_entropy_of(drawn, y.expand(count, -1)).mean(dim=0)


def draw_logits(logits: Gaussian, count: int, generator: torch.Generator | None = None) -> Tensor:
    """`count` draws of the logits: (count, batch, classes). generator: by default one with seed 0.

    >>> draw_logits(Gaussian(torch.zeros(5, 3), var=torch.tensor(1.0)), count=7).shape
    torch.Size([7, 5, 3])
    """
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    mean = logits.mean
    noise = torch.randn(count, *mean.shape, generator=generator, dtype=mean.dtype).to(mean.device)
    if logits.cov is None:
        return mean + logits.std * noise
    values, vectors = torch.linalg.eigh(logits.cov)  # a Cholesky factor would need cov > 0
    return mean + torch.einsum("bij,dbj->dbi", vectors * values.clamp(min=0).sqrt()[:, None, :], noise)


def cross_entropy_of(z: Tensor, y: Tensor) -> Tensor:
    """Cross entropy of logits (..., classes) for labels (...), one number each.

    >>> cross_entropy_of(torch.zeros(3, 10), torch.tensor([1, 2, 3]))[0]  # log 10
    tensor(2.3026)
    """
    return z.logsumexp(dim=-1) - z.gather(-1, y[..., None]).squeeze(-1)
