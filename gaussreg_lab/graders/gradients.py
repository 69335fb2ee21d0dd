"""Graders of lesson 04: an input gradient, double backpropagation, a norm by jolts, a weight in other units.

None of them uses the penalties of the package: they take Jacobians by torch.func, or know the answer of a
linear map.

Lesson: notebooks/04_gradients.ipynb
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from gaussreg_lab.verdicts import RIGHT, WRONG, Verdict, number


def _squared_gradient(answer: object) -> Verdict:
    """4.1: |dl/dx|^2 for logits (w x, 0), w = (3, 4), at p = 1/2."""
    value = number(answer)
    if abs(value - 25 / 4) < 1e-6:
        return Verdict(RIGHT, "p - y is +-1/2 in the logit that depends on x: a quarter of |w|^2 = 25.")
    if abs(value - 5 / 2) < 1e-6:
        return Verdict(WRONG, "This is the gradient's length; the penalty is its square.")
    if abs(value - 25) < 1e-6:
        return Verdict(WRONG, "This is |w|^2, the square of dz/dx. The loss adds its factor p - y.")
    if abs(value - 25 / 2) < 1e-6:
        return Verdict(WRONG, "Only the first logit depends on x: the second one adds nothing.")
    return Verdict(WRONG, f"Got {answer!r}; write dl/dx as (p_1 - y_1) w.")


def _double_backpropagation(answer: Callable[[nn.Module, Tensor, Tensor], Tensor]) -> Verdict:
    """4.2: a function (model, x, y) -> mean squared length of the images' loss gradients, differentiable."""
    if not callable(answer):
        return Verdict(WRONG, f"Expected a function of model, x and y, got {answer!r}.")
    model, x, y = _small_problem()
    jacobians = torch.func.vmap(torch.func.jacrev(lambda image: model(image[None])[0]))(x)
    p = model(x).softmax(dim=1)
    gradients = ((p - nn.functional.one_hot(y, 3))[:, None, :] @ jacobians)[:, 0]
    true = gradients.square().sum(dim=1).mean()
    got = answer(model, x, y)
    if not isinstance(got, Tensor) or got.dim() != 0:
        shape = tuple(got.shape) if isinstance(got, Tensor) else type(got).__name__
        return Verdict(WRONG, f"Expected one number, a tensor without dimensions, got {shape}.")
    got = got.double()
    for mistaken, sentence in (
        (true / len(x) ** 2, "Smaller by the squared batch size: the gradient is that of the mean loss."),
        (true * len(x), "This is the sum over the batch: take the mean."),
        (gradients.norm(dim=1).mean(), "This is the mean length: the penalty is the squared one."),
    ):
        if torch.isclose(got, mistaken, rtol=1e-6):
            return Verdict(WRONG, sentence)
    if not torch.isclose(got, true, rtol=1e-6):
        return Verdict(WRONG, f"For four images of a small network expected {true:.5f}, got {got:.5f}.")
    weights = list(model.parameters())
    wanted = torch.autograd.grad(true, weights)
    try:
        had = torch.autograd.grad(got, weights, materialize_grads=True)
    except RuntimeError:
        return Verdict(WRONG, "The number is right, but no weight can be trained on it: create_graph=True.")
    if all(torch.allclose(*pair, rtol=1e-6) for pair in zip(had, wanted, strict=True)):
        return Verdict(RIGHT, "Value and gradient agree with Jacobians by torch.func.")
    return Verdict(WRONG, "The value is right, its gradient by the weights is not: something is cut off.")


def _small_problem() -> tuple[nn.Module, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]), torch.no_grad():  # new layers draw from the global generator
        model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double()
        for weight in model.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator, dtype=torch.float64))
    return model, torch.randn(4, 5, generator=generator, dtype=torch.float64), torch.tensor([0, 2, 1, 1])


def _frobenius_by_jolts(answer: Callable[[Callable, Tensor, Tensor], Tensor]) -> Verdict:
    """4.3: a function (function, x, directions) -> mean squared length of J v, by differences."""
    if not callable(answer):
        return Verdict(WRONG, f"Expected a function of function, x and directions, got {answer!r}.")
    generator = torch.Generator().manual_seed(1)
    matrix = torch.randn(3, 4, generator=generator, dtype=torch.float64)
    x, directions = (
        torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((4,), (50, 4))
    )
    got = torch.as_tensor(answer(lambda points: (points @ matrix.mT).sin(), x, directions)).double()
    if got.dim() != 0:
        return Verdict(WRONG, f"Expected one number, got shape {tuple(got.shape)}.")
    moved = directions @ (matrix * (matrix @ x).cos()[:, None]).mT  # J v for sin(A x)
    true = moved.square().sum(dim=1).mean()
    for mistaken, sentence in (
        (moved.norm(dim=1).mean(), "This is the mean length: square it before the mean."),
        (moved.square().mean(), "Sum the squares over the outputs; the mean is over the directions alone."),
        (true * len(directions), "This is the sum over the directions: take the mean."),
    ):
        if torch.isclose(got, mistaken, rtol=1e-3):
            return Verdict(WRONG, sentence)
    if torch.isclose(got, true, rtol=1e-2):
        return Verdict(RIGHT, "It agrees with the Jacobian of a map whose derivative is known.")
    return Verdict(WRONG, f"For sin(A x) and 50 directions expected {true:.4f}, got {got:.4f}.")


def _weight_for_pixels(answer: object) -> Verdict:
    """4.4: a weight of 8 for inputs divided by 0.25, for pixels."""
    value = number(answer)
    if abs(value - 0.5) < 1e-6:
        return Verdict(RIGHT, "8 times 0.25^2. Forgetting this makes a paper's weight 16 times too strong.")
    if abs(value - 2) < 1e-6:
        return Verdict(WRONG, "The penalty is a squared derivative, so the factor is squared as well.")
    if abs(value - 128) < 1e-6:
        return Verdict(WRONG, "The other way round: the gradient by pixels is the larger one.")
    return Verdict(WRONG, f"Got {answer!r}; by how much is the squared gradient by pixels larger?")


GRADIENTS = {
    "4.1": _squared_gradient,
    "4.2": _double_backpropagation,
    "4.3": _frobenius_by_jolts,
    "4.4": _weight_for_pixels,
}
