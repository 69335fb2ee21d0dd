r"""The largest of several Gaussians, two at a time.

The maximum of two has closed-form mean and variance (Clark). The maximum of a window is a knockout
tournament of such pairs, each winner taken for a Gaussian in the next round: an approximation, and
the only one that a max pooling needs. Where covariances are known, a pair's maximum is

    max(x1, x2) = x2 + relu(d),     d = x1 - x2
    Cov[relu(d), y] = Phi(alpha) Cov[d, y]          for jointly Gaussian d, y (Stein)

with Phi(alpha) the probability that x1 wins, and the covariance of two ReLUs is known as well: so all
winners of a round have their exact covariances with each other.

Source: Clark, "The Greatest of a Finite Set of Random Variables", Operations Research 9 (1961).
Lesson: notebooks/02_propagation.ipynb
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gaussreg_lab.covariance import larger_of_two
from gaussreg_lab.gaussian import Gaussian, relu_mean
from gaussreg_lab.normal import normal_cdf

Covariance = Callable[[Tensor, Tensor], Tensor]  # (mean, cov) of z -> cov of relu(z)


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


def largest_correlated(mean: Tensor, cov: Tensor, covariance: Covariance) -> tuple[Tensor, Tensor]:
    """Mean (batch, outputs) and covariance (batch, outputs, outputs) of maxima over dimension 1.

    mean: (batch, players, outputs); cov: (batch, n, n) with n = players outputs. covariance: of two
    rectified components, as in `layer_moments`. Exact for two players.

    >>> from gaussreg_lab.covariance import relu_covariance
    >>> mean, cov = largest_correlated(torch.zeros(1, 2, 1), torch.ones(1, 2, 2), relu_covariance)
    >>> mean.abs() < 1e-12, cov  # twice the same player
    (tensor([[True]]), tensor([[[1.]]]))
    """
    batch, _, outputs = mean.shape
    while (players := mean.shape[1]) > 1:
        pairs = players // 2 * outputs  # of single components
        first, second, left = (slice(pairs), slice(pairs, 2 * pairs), slice(2 * pairs, None))
        flat = mean.flatten(1)
        rows = cov[:, first] - cov[:, second]  # of d with everybody
        spread = rows[:, :, first] - rows[:, :, second]  # of d with d
        d = Gaussian(flat[:, first] - flat[:, second], cov=(spread + spread.mT) / 2)
        on = gate(d)[:, :, None]
        with_second = on * rows[:, :, second]
        rectified = covariance(d.mean, d.cov)
        winners = cov[:, second, second] + with_second + with_second.mT + rectified
        with_left = cov[:, second, left] + on * rows[:, :, left]
        top = torch.cat([winners, with_left], dim=2)
        cov = torch.cat([top, torch.cat([with_left.mT, cov[:, left, left]], dim=2)], dim=1)
        lifted = flat[:, second] + relu_mean(d.mean, d.variances)
        mean = torch.cat([lifted, flat[:, left]], dim=1).view(batch, -1, outputs)
    return mean[:, 0], cov


def gate(x: Gaussian) -> Tensor:
    """Probability of each component to lie above 0, in the mean's shape: the soft gate of a ReLU.

    >>> gate(Gaussian(torch.tensor([[0.0, 1.0]]), var=torch.tensor(1.0)))
    tensor([[0.5000, 0.8413]])
    """
    tiny = torch.finfo(x.mean.dtype).tiny
    return normal_cdf(x.mean / torch.where(x.variances == 0, tiny, x.variances).sqrt())


def max_pool(layer: nn.MaxPool2d, x: Gaussian, covariance: Covariance) -> Gaussian:
    """Moments of a max pooling: windows of images (batch, channels, height, width).

    With var the cells of a window count as independent. covariance: as in `layer_moments`.
    Raises NotImplementedError for ceil_mode.

    >>> from gaussreg_lab.covariance import relu_covariance
    >>> image = Gaussian(torch.zeros(1, 1, 2, 2), var=torch.tensor(1.0))
    >>> max_pool(nn.MaxPool2d(2), image, relu_covariance).mean
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
    chosen = members.flatten()
    cov = F.pad(x.cov, (0, 1, 0, 1))[:, chosen][:, :, chosen]
    mean, cov = largest_correlated(mean, cov, covariance)
    return Gaussian(mean.reshape(-1, *shape), cov=(cov + cov.mT) / 2)


def _paired(players: Tensor, pairs: int) -> tuple[Tensor, Tensor, Tensor]:
    """The first and the second of each pair, and who is left over in an odd round."""
    return players[:, :pairs], players[:, pairs : 2 * pairs], players[:, 2 * pairs :]


def _window_members(layer: nn.MaxPool2d, shape: torch.Size) -> Tensor:
    """Numbers (cells, outputs) of the components in each window; a padded cell has the number n."""
    n = shape.numel()
    numbers = torch.arange(1, n + 1, dtype=torch.float64).reshape(1, *shape)
    columns = F.unfold(numbers, layer.kernel_size, layer.dilation, layer.padding, layer.stride)  # padding: 0
    members = columns.reshape(shape[0], -1, columns.shape[-1]).transpose(0, 1).flatten(1).long() - 1
    return torch.where(members < 0, n, members)
