"""What closed-form moments cost: training steps, a full covariance, and Monte Carlo at equal error.

    .venv/bin/python tests/benchmarks/moments.py       # some three minutes; writes moments.json

Every figure is a ratio measured in one run, turn by turn (ratios.py). Run it on a quiet machine.
"""

import json
import math
import platform
from pathlib import Path

import torch
from ratios import compare

import gaussreg_lab as lab
from gaussreg_lab.covariance import relu_covariance
from gaussreg_lab.training import step

THREADS = 2
BATCH = 128
SIGMA = 0.25


def step_of(model: torch.nn.Module, loss: lab.Loss, shape: tuple[int, ...]):
    """One training step on random images, as `fit` makes it: the same work as on real ones."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(BATCH, *shape, generator=generator)
    y = torch.randint(10, (BATCH,), generator=generator)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
    return lambda: step(model, x, y, loss, optimizer)


def training_steps() -> dict:
    models = {
        "LeNet-28, the paper's size": (lab.lenet(channels=(32, 64), hidden=1024), (1, 28, 28)),
        "LeNet-28, the lab's size": (lab.lenet(), (1, 28, 28)),
        "CIFAR convnet": (lab.cifar_convnet(), (3, 32, 32)),
    }
    second = lab.SecondOrderLoss(SIGMA)
    losses = {
        "cross entropy + expected output, as a sum": lab.weighted_sum(
            (1.0, lab.cross_entropy), (1.0, lab.ExpectedOutputLoss(SIGMA))
        ),
        "cross entropy + expected output, in one pass": lab.AnalyticalMomentLoss(SIGMA),
        "second order": second,
        "cross entropy + second order": lab.weighted_sum((1.0, lab.cross_entropy), (1.0, second)),
        "fresh noise, 1 sample": lab.NoisyLoss(SIGMA),
        "clean + 1 fresh fold": lab.weighted_sum((0.5, lab.cross_entropy), (0.5, lab.NoisyLoss(SIGMA))),
        "clean + 5 fresh folds": lab.weighted_sum((1.0, lab.cross_entropy), (5.0, lab.NoisyLoss(SIGMA, 5))),
    }
    return {
        name: compare(
            step_of(model, lab.cross_entropy, shape),
            {words: step_of(model, loss, shape) for words, loss in losses.items()},
        )
        for name, (model, shape) in models.items()
    }


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


def main() -> None:
    torch.set_num_threads(THREADS)
    report = {
        "about": {"torch": torch.__version__, "threads": THREADS, "machine": platform.machine()},
        "training steps, in plain steps": training_steps(),
        "covariance of ReLUs, in Cholesky factors": full_covariance(),
        "Monte Carlo at equal error, in closed forms (LeNet)": monte_carlo_at_equal_error(),
        "Monte Carlo at equal error, in closed forms (MLP, all covariances)": exact_at_equal_error(),
    }
    Path(__file__).with_name("moments.json").write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
