r"""The largest of several Gaussians, two at a time.

The maximum of two has closed-form mean and variance (Clark). The maximum of a window is a knockout
tournament of such pairs, each winner taken for a Gaussian in the next round: an approximation, and
the only one that a max pooling needs. Where covariances are known, each winner keeps its own with
all others,

    Cov[max(x1, x2), y] = Phi(alpha) Cov[x1, y] + Phi(-alpha) Cov[x2, y]

with Phi(alpha) the probability that x1 wins; exact for jointly Gaussian x1, x2, y.

Source: Clark, "The Greatest of a Finite Set of Random Variables", Operations Research 9 (1961).
Lesson: notebooks/02_propagation.ipynb
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gaussreg_lab.covariance import larger_of_two
from gaussreg_lab.gaussian import Gaussian, normal_cdf


def largest(mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of the largest of independent Gaussians, over dimension 1.

    mean, var: (batch, players, outputs). Returns two tensors (batch, outputs). The result depends
    on who meets whom, hardly for players that are alike.

    >>> mean, var = largest(torch.zeros(1, 4, 1), torch.ones(1, 4, 1))
    >>> mean, var  # of four draws of N(0, 1); by integration 1.0294 and 0.4917
    (tensor([[1.0300]]), tensor([[0.4647]]))
    """
    while mean.shape[1] > 1:
        pairs = mean.shape[1] // 2
        (mean1, mean2, mean_left), (var1, var2, var_left) = (_paired(it, pairs) for it in (mean, var))
        winner = larger_of_two(mean1, var1, mean2, var2, torch.zeros_like(var1))
        mean = torch.cat([winner.mean, mean_left], dim=1)
        var = torch.cat([winner.var, var_left], dim=1)
    return mean[:, 0], var[:, 0]


def largest_correlated(mean: Tensor, cov: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (batch, outputs) and covariance (batch, outputs, outputs) of maxima over dimension 1.

    mean: (batch, players, outputs); cov: (batch, players, outputs, players, outputs).

    >>> mean, cov = largest_correlated(torch.zeros(1, 2, 1), torch.ones(1, 2, 1, 2, 1))
    >>> mean.abs() < 1e-12, cov  # twice the same player
    (tensor([[True]]), tensor([[[1.]]]))
    """
    batch, _, outputs = mean.shape
    while (players := mean.shape[1]) > 1:
        pairs = players // 2
        var = cov.reshape(batch, players * outputs, -1).diagonal(dim1=1, dim2=2).view_as(mean)
        (mean1, mean2, mean_left), (var1, var2, var_left) = (_paired(it, pairs) for it in (mean, var))
        between = torch.einsum("bpopo->bpo", cov[:, :pairs, :, pairs : 2 * pairs])  # each with the opponent
        winner = larger_of_two(mean1, var1, mean2, var2, between)
        wins = _probability_of_winning(mean1 - mean2, var1 + var2 - 2 * between)
        cov = _rows_of_winners(cov, wins)
        cov = _rows_of_winners(cov.permute(0, 3, 4, 1, 2), wins)
        mean = torch.cat([winner.mean, mean_left], dim=1)
        own = torch.cat([winner.var, var_left], dim=1).flatten(1)
        cov = cov.reshape(batch, own.shape[1], -1).diagonal_scatter(own, dim1=1, dim2=2)
        cov = cov.view(batch, *mean.shape[1:], *mean.shape[1:])
    return mean[:, 0], cov[:, 0, :, 0]


def max_pool(layer: nn.MaxPool2d, x: Gaussian) -> Gaussian:
    """Moments of a max pooling: windows of images (batch, channels, height, width).

    With var the cells of a window count as independent. Raises NotImplementedError for ceil_mode.

    >>> image = Gaussian(torch.zeros(1, 1, 2, 2), var=torch.tensor(1.0))
    >>> max_pool(nn.MaxPool2d(2), image).mean
    tensor([[[[1.0300]]]])
    """
    shape = layer(x.mean[:1]).shape[1:]
    members = _window_members(layer, x.mean.shape[1:])
    if members.shape[1] != shape.numel():
        raise NotImplementedError("Expected MaxPool2d with ceil_mode=False, got ceil_mode=True")
    # padding can never win: one more component, without spread, far below all others
    lowest = x.mean.amin() - 100 * x.std.amax() - 1
    mean = F.pad(x.mean.flatten(1), (0, 1), value=lowest.item())[:, members]
    if x.cov is None:
        mean, var = largest(mean, F.pad(x.var.flatten(1), (0, 1))[:, members])
        return Gaussian(mean.reshape(-1, *shape), var=var.reshape(-1, *shape))
    padded = F.pad(x.cov, (0, 1, 0, 1))
    mean, cov = largest_correlated(mean, padded[:, members][:, :, :, members])
    return Gaussian(mean.reshape(-1, *shape), cov=(cov + cov.mT) / 2)


def _paired(players: Tensor, pairs: int) -> tuple[Tensor, Tensor, Tensor]:
    """The first and the second of each pair, and who is left over in an odd round."""
    return players[:, :pairs], players[:, pairs : 2 * pairs], players[:, 2 * pairs :]


def _probability_of_winning(lead: Tensor, var: Tensor) -> Tensor:
    tiny = torch.finfo(var.dtype).tiny
    return normal_cdf(lead / var.clamp(min=tiny).sqrt())


def _rows_of_winners(cov: Tensor, wins: Tensor) -> Tensor:
    """Each pair of rows becomes one: the winner's covariance with everybody."""
    first, second, left = _paired(cov, wins.shape[1])
    wins = wins[..., None, None]
    return torch.cat([wins * first + (1 - wins) * second, left], dim=1)


def _window_members(layer: nn.MaxPool2d, shape: torch.Size) -> Tensor:
    """Numbers (cells, outputs) of the components in each window; a padded cell has the number n."""
    n = shape.numel()
    numbers = torch.arange(1, n + 1, dtype=torch.float64).reshape(1, *shape)
    columns = F.unfold(numbers, layer.kernel_size, layer.dilation, layer.padding, layer.stride)  # padding: 0
    members = columns.reshape(shape[0], -1, columns.shape[-1]).transpose(0, 1).flatten(1).long() - 1
    return torch.where(members < 0, n, members)
