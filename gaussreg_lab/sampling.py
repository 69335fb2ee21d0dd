r"""Monte Carlo: the judge of every closed form that a network needs, with its own error bars.

From n independent draws of the input,

    mean   = average of f(x_i)                  its standard error  sqrt(var / n)
    var    = average squared deviation          its standard error  sqrt((m4 - var^2) / n)

with m4 the fourth central moment. The error falls with the square root of n: one digit more costs a
hundred times the draws. A judge who may be wrong says by how much.

Lesson: notebooks/02_propagation.ipynb
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from gaussreg_lab.gaussian import Gaussian

AT_ONCE = 2**17  # input numbers drawn at a time: a layer may make thirty of each


class SampledMoments(NamedTuple):
    """Moments of the outputs (batch, outputs) by sampling, and the standard errors of mean and var.

    cov: (batch, outputs, outputs). count: draws for each input.
    """

    mean: Tensor
    mean_error: Tensor
    var: Tensor
    var_error: Tensor
    cov: Tensor
    count: int


@torch.no_grad()
def sample_moments(
    model: nn.Module, x: Gaussian, count: int = 10_000, generator: torch.Generator | None = None
) -> SampledMoments:
    """Moments of model(x) from `count` draws of the Gaussian x, batch first.

    x: with var (independent components) or cov. generator: of the draws, on the CPU; by default one
    with seed 0, so that two calls agree. Memory is bounded whatever the count: for n outputs, 12 n^2
    bytes an input, since sums are kept in float64. The model is used as it is: put it in eval mode.
    Raises ValueError for count < 2, TypeError when x is no Gaussian.

    >>> x = Gaussian(torch.zeros(1, 1), var=torch.tensor(1.0))
    >>> sampled = sample_moments(nn.ReLU(), x, count=10_000)
    >>> abs(sampled.mean.item() - 0.3989) < 4 * sampled.mean_error.item()
    True
    """
    if not isinstance(x, Gaussian):
        raise TypeError(
            f"Expected x to be a Gaussian, got {type(x).__name__}; Gaussian(images, var=sigma**2)"
        )
    if count < 2:
        raise ValueError(f"Expected count >= 2, got {count}")
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    root = None if x.cov is None else _square_root(x.cov)
    centre = model(x.mean).flatten(1).double()  # deviations from here are small, so nothing cancels
    sums = [torch.zeros_like(centre) for _ in range(4)]
    products = torch.zeros(*centre.shape, centre.shape[1], dtype=torch.float64, device=centre.device)
    at_once = max(1, AT_ONCE // x.mean.numel())
    for done in range(0, count, at_once):
        drawn = _draw(x, root, min(at_once, count - done), generator)  # (draws, batch, ...)
        outputs = model(drawn.flatten(0, 1)).flatten(1).double()
        away = outputs.view(len(drawn), *centre.shape) - centre
        for power, total in enumerate(sums, start=1):
            total += away.pow(power).sum(dim=0)
        products.baddbmm_(away.permute(1, 2, 0), away.transpose(0, 1))  # in place: it may be large
    return _from_sums(centre, sums, products, count, x.mean.dtype)


def _from_sums(
    centre: Tensor, sums: list[Tensor], products: Tensor, count: int, dtype: torch.dtype
) -> SampledMoments:
    first, second, third, fourth = (total / count for total in sums)
    spread = second - first.square()
    m4 = fourth - 4 * first * third + 6 * first.square() * second - 3 * first.pow(4)
    var = spread * count / (count - 1)
    cov = products.baddbmm_(first[:, :, None], first[:, None, :], alpha=-count).div_(count - 1)
    mean_error = (var / count).sqrt()
    var_error = ((m4 - spread.square()).clamp(min=0) / count).sqrt()
    results = (centre + first, mean_error, var, var_error, cov)
    return SampledMoments(*(it.to(dtype) for it in results), count)


def _draw(x: Gaussian, root: Tensor | None, draws: int, generator: torch.Generator) -> Tensor:
    noise = torch.randn(draws, *x.mean.shape, generator=generator, dtype=x.mean.dtype).to(x.mean.device)
    if root is None:
        return x.mean + x.std * noise
    mixed = torch.einsum("bij,dbj->dbi", root, noise.flatten(2))
    return x.mean + mixed.view_as(noise)


def _square_root(cov: Tensor) -> Tensor:
    """A matrix R with R R' = cov; by eigenvalues, since a Cholesky factor needs cov > 0."""
    values, vectors = torch.linalg.eigh(cov)
    return vectors * values.clamp(min=0).sqrt()[..., None, :]
