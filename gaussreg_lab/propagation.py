r"""A Gaussian through a whole network, layer by layer.

    input N(mean, var) or N(mean, cov)  ->  layer, layer, ...  ->  mean and (co)variance of the output

Each layer takes what reaches it for a Gaussian and passes on the moments of its output. What the
input carries decides what is remembered on the way:

    var   every component is taken for independent of all others: quick, and it forgets that
          neighbours share their noise (assumed density filtering)
    cov   all covariances are kept: exact for one hidden layer, n x n numbers for n components

Where two paths meet, as in a residual sum, var takes them for independent; cov knows better, since
for Gaussian x, by Stein's lemma, Cov[f(x), y] = E[f'(x)] Cov[x, y], and E[f'] is the derivative of E[f]
by the mean.

Source: Stein, "Estimation of the Mean of a Multivariate Normal Distribution", Ann. Statist. 9 (1981);
moment matching layer by layer: Gast, Roth, "Lightweight Probabilistic Deep Networks", CVPR (2018).
Lesson: notebooks/02_propagation.ipynb
"""

import operator
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, fx, nn

from gaussreg_lab.covariance import relu_covariance
from gaussreg_lab.gaussian import Gaussian
from gaussreg_lab.layer_moments import Covariance, has_rule, known_layers, layer_moments
from gaussreg_lab.models import Normalize

SUMS = {operator.add, operator.iadd, torch.add, "add", "add_"}
RELUS = {torch.relu, nn.functional.relu, "relu", "relu_"}  # what models call instead of keeping a layer
FLATTENS = {torch.flatten, "flatten"}
ELEMENTWISE = (  # their outputs depend on one input each, whether the inputs are independent or not
    *(nn.ReLU, nn.LeakyReLU, nn.Identity, nn.Flatten, nn.Dropout, nn.Dropout2d),
    *(nn.BatchNorm1d, nn.BatchNorm2d, Normalize),
)


class Step(NamedTuple):
    """What one layer of the network passes on.

    name: the layer's, as in the model. moments: of its output. assumed: which independence the
    layer had to assume, in words; empty where none was needed.
    """

    name: str
    moments: Gaussian
    assumed: str


def propagate(model: nn.Module, x: Gaussian, covariance: Covariance = relu_covariance) -> Gaussian:
    """Moments of model(x) for a Gaussian x: with var if x carries var, with cov if it carries cov.

    model: in eval mode; Sequential or anything torch.fx can trace. x: batch first; an image's
    spread is in pixel units squared. covariance: of two rectified components: `relu_covariance` (exact),
    `relu_covariance_hermite` or `relu_covariance_gate`; used where x carries cov.
    Differentiable. Memory with cov: n^2 numbers an image for the widest layer of n components.

    Raises NotImplementedError for a layer without a rule, ValueError for a model in train mode that
    has batch norm or dropout, TypeError when x is no Gaussian.

    >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)).double()
    >>> x = Gaussian(torch.zeros(4, 2).double(), var=torch.tensor(0.1).double())
    >>> propagate(model, x).mean.shape
    torch.Size([4, 1])
    """
    for step in layer_by_layer(model, x, covariance):
        moments = step.moments
    return moments


def layer_by_layer(model: nn.Module, x: Gaussian, covariance: Covariance = relu_covariance) -> Iterator[Step]:
    """`propagate`, one `Step` after each layer, beginning with the input itself.

    >>> x = Gaussian(torch.zeros(1, 2), var=torch.tensor(1.0))
    >>> [step.name for step in layer_by_layer(nn.Sequential(nn.Linear(2, 3), nn.ReLU()), x)]
    ['input', '0', '1']
    """
    _expect_batch(x)
    model = nn.Sequential(model) if has_rule(model) else model  # a single layer is a short network
    graph = _graph(model)
    values = _Values(model, covariance, last_use=_last_use(graph))
    for node in graph.nodes:
        if node.op == "placeholder":
            values.moments[node] = x
            yield Step("input", x, "")
        elif node.op != "output":
            yield values.add(node)


class _Values:
    """What the layers have computed and later layers still need, and how it all covaries."""

    def __init__(self, model: nn.Module, covariance: Covariance, last_use: dict[fx.Node, fx.Node]) -> None:
        self.model, self.covariance, self.last_use = model, covariance, last_use
        self.moments: dict[fx.Node, Gaussian] = {}
        self.crossed: dict[tuple[fx.Node, fx.Node], Tensor] = {}  # (batch, n, m), flattened components

    def add(self, node: fx.Node) -> Step:
        parents = [it for it in node.args if isinstance(it, fx.Node)]
        is_sum = node.op != "call_module" and node.target in SUMS and len(parents) == 2
        step = self._sum(node, *parents) if is_sum else self._layer(node, *parents)
        for used in [it for it in self.moments if self.last_use.get(it) is node]:
            del self.moments[used]
        self.moments[node] = step.moments
        self.crossed = {ab: it for ab, it in self.crossed.items() if all(one in self.moments for one in ab)}
        return step

    def _layer(self, node: fx.Node, *parents: fx.Node) -> Step:
        layer = _layer_of(node, self.model)
        (parent,) = parents
        x = self.moments[parent]
        y = layer_moments(layer, x, self.covariance)
        if x.cov is not None:
            for other in self._alive_after(node):
                moved = _by_stein(layer, x, self._between(parent, other), self.covariance)
                self.crossed[node, other], self.crossed[other, node] = moved, moved.mT
        mixes = x.cov is None and parent.op != "placeholder" and not isinstance(layer, ELEMENTWISE)
        return Step(_name(node), y, "its inputs are independent of each other" if mixes else "")

    def _sum(self, node: fx.Node, first: fx.Node, second: fx.Node) -> Step:
        x, y = self.moments[first], self.moments[second]
        if x.cov is None:
            total = Gaussian(x.mean + y.mean, var=x.var + y.var)
            return Step(_name(node), total, "the two branches of the sum are independent of each other")
        between = self._between(first, second)
        for other in self._alive_after(node):
            both = self._between(first, other) + self._between(second, other)
            self.crossed[node, other], self.crossed[other, node] = both, both.mT
        return Step(_name(node), Gaussian(x.mean + y.mean, cov=x.cov + y.cov + between + between.mT), "")

    def _alive_after(self, node: fx.Node) -> list[fx.Node]:
        return [it for it in self.moments if self.last_use.get(it) is not node]

    def _between(self, first: fx.Node, second: fx.Node) -> Tensor:
        return self.moments[first].cov if first is second else self.crossed[first, second]


def _by_stein(layer: nn.Module, x: Gaussian, columns: Tensor, covariance: Covariance) -> Tensor:
    """Cov[layer(x), y] from columns Cov[x, y]: the derivative of the output's mean along each column."""
    batch, _, count = columns.shape
    var = x.variances.repeat_interleave(count, dim=0)

    def mean_of_output(mean: Tensor) -> Tensor:
        return layer_moments(layer, Gaussian(mean, var=var), covariance).mean

    directions = columns.mT.reshape(batch * count, *x.mean.shape[1:])
    mean = x.mean.repeat_interleave(count, dim=0)
    # forward mode by two backward passes: the derivative of J'u by u is J; torch's own loads much, and warns
    with_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        mean = mean if mean.requires_grad else mean.requires_grad_()
        output = mean_of_output(mean)
        pull = torch.zeros_like(output, requires_grad=True)
        (pulled,) = torch.autograd.grad(output, mean, pull, create_graph=True)
        (moved,) = torch.autograd.grad(pulled, pull, directions, create_graph=with_graph)
    return moved.reshape(batch, count, -1).mT


class _Tracer(fx.Tracer):
    """Looks into a module until it finds layers that have a rule, or PyTorch's own."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return has_rule(module) or super().is_leaf_module(module, name)


def _graph(model: nn.Module) -> fx.Graph:
    if type(model) is nn.Sequential and all(map(has_rule, model)):
        return _chain(model)
    try:
        graph = _Tracer().trace(model)
    except Exception as error:  # whatever a user's forward may raise when given a symbol for a tensor
        raise NotImplementedError(
            f"Expected a model that torch.fx can trace, such as nn.Sequential, got {type(model).__name__}, "
            f"which it cannot ({error}); register a rule for the part it stumbles over"
        ) from error
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    if len(inputs) != 1:
        raise NotImplementedError(f"Expected a model of one input, got one of {len(inputs)}")
    return graph


def _chain(model: nn.Sequential) -> fx.Graph:
    """The graph that tracing finds, too; but tracing takes longer than the moments of a small layer."""
    graph = fx.Graph()
    node = graph.placeholder("input")
    for name in model._modules:  # named_children() leaves out the second place of a layer that has two
        node = graph.call_module(name, (node,))
    graph.output(node)
    return graph


def _last_use(graph: fx.Graph) -> dict[fx.Node, fx.Node]:
    return {used: node for node in graph.nodes for used in node.all_input_nodes}


def _layer_of(node: fx.Node, model: nn.Module) -> nn.Module:
    if node.op == "call_module":
        return model.get_submodule(node.target)
    if node.target in FLATTENS:
        return nn.Flatten(node.kwargs.get("start_dim", (*node.args, 0)[1]))  # torch's default is 0
    if node.target in RELUS:
        return nn.ReLU()
    name = node.target if isinstance(node.target, str) else node.target.__name__
    raise NotImplementedError(
        f"Expected layers with closed-form moments ({', '.join(known_layers())}), sums, relu and flatten, "
        f"got a call of {name}; make it a layer and register a rule for it"
    )


def _name(node: fx.Node) -> str:
    return str(node.target) if node.op == "call_module" else node.name


def _expect_batch(x: Gaussian) -> None:
    if not isinstance(x, Gaussian):
        raise TypeError(
            f"Expected x to be a Gaussian, got {type(x).__name__}; Gaussian(images, var=sigma**2)"
        )
    if x.mean.dim() < 2 or (x.cov is not None and x.cov.dim() != 3):
        raise ValueError(
            f"Expected x with the batch first, a mean (batch, ...) and a cov (batch, n, n), got a mean "
            f"{tuple(x.mean.shape)}" + ("" if x.cov is None else f" and a cov {tuple(x.cov.shape)}")
        )
