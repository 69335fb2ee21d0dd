"""What closed-form moments cost: elementwise, a full covariance, and Monte Carlo at equal error."""

import math

import torch
from ratios import Ratios, compare

import gaussreg_lab as lab
from gaussreg_lab.covariance import relu_covariance

SIGMA = 0.25


def elementwise(shape: tuple[int, ...] = (128, 32, 28, 28)) -> Ratios:
    """Mean and variance of ReLUs with their derivatives, float32, in textbook formulas."""
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(shape, generator=generator).requires_grad_()
    var = torch.rand(shape, generator=generator).add_(0.1).requires_grad_()

    def there_and_back(moments) -> None:
        torch.autograd.grad(sum(it.sum() for it in moments(mean, var)), (mean, var))

    def relu() -> None:
        torch.autograd.grad(mean.relu().sum(), mean)

    ways = {
        "mean and variance": lambda: there_and_back(lab.relu_mean_and_var),
        "each by its own function": lambda: there_and_back(
            lambda m, v: (lab.relu_mean(m, v), lab.relu_var(m, v))
        ),
    }
    plain = {"a plain ReLU": relu, **ways}
    return {**compare(lambda: there_and_back(textbook_moments), plain)}


def textbook_moments(mean: torch.Tensor, var: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The formulas as they are printed, derived by autograd; float32 loses digits in them."""
    std = var.sqrt()
    t = mean / std
    cdf, density = (1 + torch.erf(t / math.sqrt(2))) / 2, torch.exp(-(t**2) / 2) / math.sqrt(2 * math.pi)
    first = mean * cdf + std * density
    return first, (mean**2 + var) * cdf + mean * std * density - first**2


def full_covariance(n: int = 512) -> dict:
    """Exact covariance of n rectified units, against a Cholesky factor of the same matrix."""
    generator = torch.Generator().manual_seed(0)
    factor = torch.randn(n, n + 20, generator=generator, dtype=torch.float64)
    cov, mean = factor @ factor.T / n, torch.randn(n, generator=generator, dtype=torch.float64)
    return compare(
        lambda: torch.linalg.cholesky(cov),
        {
            f"exact covariance, {n} units": lambda: relu_covariance(mean, cov),
            "gates": lambda: lab.relu_covariance_gate(mean, cov),
            "Hermite, order 3": lambda: lab.relu_covariance_hermite(mean, cov),
        },
    )


def trained_lenet8() -> torch.nn.Module:
    model = lab.lenet8()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    lab.fit(model, lab.batches(lab.digits().train, 64), lab.cross_entropy, optimizer, 20, progress=False)
    return model


def monte_carlo_at_equal_error(images: int = 16, judge: int = 100_000) -> dict:
    """Monte Carlo's time over the closed form's, at the closed form's error, for several noise levels."""
    model, report = trained_lenet8(), {}
    for sigma in (0.01, 0.02, 0.05, 0.1, 0.25):
        x = lab.Gaussian(lab.digits().test.x[:images], var=torch.tensor(sigma**2))
        truth = lab.sample_moments(model, x, judge)
        for way in (lab.linearize, lab.linearize_smoothed):
            report[f"sigma {sigma}, {way.__name__}"] = at_equal_error(model, x, truth, way)
    return report


def at_equal_error(model, x: lab.Gaussian, truth: lab.SampledMoments, way) -> dict:
    """Errors are relative, |difference| / |truth|, over all images and logits; of means and of variances.

    Monte Carlo's falls with the square root of the draws, and what one draw has is read off the
    standard errors of the truth. It has to reach both of the closed form's errors.
    """
    closed, row, needed = way(model, x), {}, 2
    for what, got, exact, error in (
        ("mean", closed.mean, truth.mean, truth.mean_error),
        ("variance", closed.variances, truth.var, truth.var_error),
    ):
        reached = ((got - exact).norm() / exact.norm()).item()
        of_one_draw = (error.norm() * math.sqrt(truth.count) / exact.norm()).item()
        row[f"error of the {what}"] = round(reached, 5)
        needed = max(needed, math.ceil((of_one_draw / reached) ** 2))
    times = compare(
        lambda: way(model, x), {"Monte Carlo": lambda: lab.sample_moments(model, x, needed)}, turns=7
    )
    return {**row, "draws": needed, **times}


def exact_at_equal_error(images: int = 4, judge: int = 200_000) -> dict:
    """The same for all covariances kept, on an MLP, where the closed form is nearly exact."""
    model = lab.mlp((64, 128, 128, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    lab.fit(model, lab.batches(lab.digits().train, 64), lab.cross_entropy, optimizer, 20, progress=False)
    pictures = lab.digits().test.x[:images]
    given = lab.Gaussian(pictures, var=torch.tensor(SIGMA**2))
    full = lab.Gaussian(pictures, cov=SIGMA**2 * torch.eye(64).expand(images, 64, 64))
    truth = lab.sample_moments(model, given, judge)
    closed = lab.propagate(model, full, lab.relu_covariance_hermite)
    reached = ((closed.variances - truth.var).norm() / truth.var.norm()).item()
    of_one_draw = (truth.var_error.norm() * math.sqrt(judge) / truth.var.norm()).item()
    count = math.ceil((of_one_draw / reached) ** 2)
    ratios = compare(
        lambda: lab.propagate(model, full, lab.relu_covariance_hermite),
        {f"{count} draws": lambda: lab.sample_moments(model, given, count)},
    )
    return {"closed form's error": round(reached, 4), "draws": count, **ratios}


def sections() -> dict:
    return {
        "ReLU moments, in textbook formulas": elementwise,
        "covariance of 512 ReLUs, in Cholesky factors": full_covariance,
        "Monte Carlo at equal error, in closed forms": monte_carlo_at_equal_error,
        "Monte Carlo at equal error, in closed forms with all covariances": exact_at_equal_error,
    }
