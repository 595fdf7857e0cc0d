"""Writes docs/models.md: each network's table, and what differs from torchvision.

python -m docs.models
"""

from collections.abc import Iterator
from pathlib import Path

from flax import nnx

from cnn_jax import geometry, models

PAGE = Path(__file__).with_suffix(".md")
COLUMNS = ("layer", "kind", "output", "kernel", "strides", "field", "jump", "parameters", "MACs")

INTRODUCTION = """\
# Models

Every network is made by `models.create(name, ...)`:

```python
from flax import nnx
from cnn_jax import models, weights

model = models.create("vgg_d", num_classes=1000, input_shape=(224, 224, 3), width=1.0, rngs=nnx.Rngs(0))
output, activations = model(images, return_activations=True)  # (batch, 224, 224, 3); activations["fc7"]
loaded = weights.load(model, "vgg16.safetensors")  # torchvision's or timm's; loaded.about has mean and std of inputs
tuned = models.replace_head(loaded.model, 10)  # ten classes, on the same features
graph, trained, frozen = nnx.split(tuned, models.trainable(tuned, ["fc8", "fc7/*"]), ...)  # the others stay as they are
sliding = models.convolutionalize(tuned)  # takes larger images: scores for every window
```

`num_classes`, `input_shape` and `width` are those of the paper unless given; `dtype=jnp.bfloat16` computes in bfloat16
and keeps parameters in float32; further keywords are the options of a network, `models.variant(name).options()`.

The tables are computed from the networks, by `python -m docs.models`; `launch.py --mode=summary` prints that of a
config with every layer, and writes it as CSV, Markdown, JSON or a picture.

Here a row is a layer with a window, weights or another shape than the one before, or a block of layers as one. *field*
is the size of a unit's receptive field in the image, *jump* the distance from one unit's field to the next; *MACs* are
multiplications of weights with inputs for one image, biases not counted. Fields are those of the formulas, so they may
be larger than the image.
"""

# Title, what there is to say, the names of the networks.
FAMILIES: list[tuple[str, str, tuple[str, ...]]] = [
    (
        "Baselines",
        """\
Not convolutional: what the others are compared with. Logistic regression starts at zero; the perceptrons' kernels have
a standard deviation of one over the root of the fan-in (LeCun et al. 1998), their biases are zero.""",
        ("logistic_regression", "mlp_two_neurons", "mlp"),
    ),
    (
        "Stacks",
        "One large kernel or several small ones that see as far: the network of "
        "[a sweep](sweeps.md#kernel-size-and-depth).",
        ("conv_stack",),
    ),
    (
        "Neocognitron",
        """\
Fukushima 1980. It learns by a rule of its own, `neocognitron.self_organize`, not by gradients, and torchvision has
nothing like it. Excitatory connections start small and positive, inhibitory ones at zero.""",
        ("neocognitron",),
    ),
    (
        "LeNet",
        """\
torchvision has none. `lenet_1989` and `lenet_5` keep what later versions drop: partial connections, a bias for every
unit (1989), trained subsampling and an output of distances to fixed codes (1998), which are float32 whatever `dtype`
is. `lenet_5_modern` is the one that is taught.

Initial weights are uniform between plus and minus 2.4 / fan-in, as the papers say, those of `lenet_5_modern` have a
standard deviation of one over the root of the fan-in. Biases are zero.""",
        ("lenet_1989", "lenet_1", "lenet_5", "lenet_5_modern"),
    ),
    (
        "AlexNet",
        """\
- `alexnet` is the network of 2012, in two groups, with response normalisation and overlapping pools. Its images are
  227x227: of 224x224 ones, as the paper says, its first convolution does not make 55x55 maps.
- `alexnet_torchvision` is torchvision's, and takes its weights. That one follows a later paper (Krizhevsky 2014): fewer
  channels in the first two layers, no groups, no normalisation, padding, and dropout before the full connections.
- `alexnet_ungrouped` is drawn as one piece; `alexnet_batch_norm` has batch normalisation and no padding.

`alexnet` and `alexnet_ungrouped` start as published: a Gaussian of 0.01, biases of 1 in conv2, conv4, conv5, fc6 and
fc7 and of 0 elsewhere. The other two start as PyTorch does, uniform between plus and minus one over the root of the
fan-in.""",
        ("alexnet", "alexnet_ungrouped", "alexnet_torchvision", "alexnet_batch_norm"),
    ),
    (
        "ZFNet",
        """\
torchvision has none. Pools take partial last windows (`rounding='ceil'`): without them the second would make 12x12
maps, and the paper has 13x13. `zfnet_wide` has the wider last convolutions that the paper tries in a table. Initial
weights are a Gaussian of 0.01 ("initialized to 10^-2", the paper says), biases zero.""",
        ("zfnet", "zfnet_wide"),
    ),
    (
        "VGG",
        """\
A, B, D and E are torchvision's `vgg11`, `vgg13`, `vgg16` and `vgg19`, with and without batch normalisation, and take
their weights. torchvision has an adaptive pool to 7x7 before the full connections, which does nothing to 224x224
images; here another image size makes another first full connection instead. torchvision has neither A-LRN nor C.

A and A-LRN start with a Gaussian of standard deviation 0.01; the paper says variance, with which the scores of a
normalised image would start at about two million. B to E by Glorot and Bengio's uniform rule, of which the paper says
that it makes starting with the layers of a trained A, as it did, unnecessary. The `_bn` ones by He's normal rule; they
are younger than the paper. Biases are zero. torchvision starts all of them by He's rule with the fan-out, and the full
connections with a Gaussian of 0.01.""",
        tuple(f"vgg_{letter}{bn}" for letter in ("a", "a_lrn", "b", "c", "d", "e") for bn in ("", "_bn")),
    ),
    (
        "GoogLeNet",
        """\
- `googlenet` is the paper's: a 5x5 window in the branch of that name, response normalisation, biases, pools of 3x3.
- `googlenet_torchvision` is torchvision's, and takes its weights: 3x3 in the branch called 5x5 (a slip that its weights
  made permanent), batch normalisation with epsilon 0.001 and no biases, a fourth pool of 2x2, heads that average to 4x4
  whatever the image's size.
- `inception_naive` is GoogLeNet of the blocks that the paper begins with, without 1x1 reductions: each pool passes on
  all its channels, which add up from block to block. It is there to compare costs.

Tables are of inference. The two auxiliary heads, which are run in training only, have 6,379,728 parameters more
(6,379,984 in torchvision's). torchvision returns their logits from a call in training; here they are among the
activations.

Kernels of the paper's start uniform with variance 1 / fan-in and biases at 0.2 (at 0 where classes come out), as in
Caffe's version, since the paper does not say; torchvision's are a normal distribution of standard deviation 0.01, cut
off at twice that.""",
        ("googlenet", "googlenet_torchvision", "inception_naive"),
    ),
    (
        "Inception-ResNet",
        """\
`inception_resnet_v1` is built from the figures of Szegedy et al. 2016. torchvision has none; timm has the larger
v2. Kernels are drawn with variance 2 / fan-in, as in the authors' code.""",
        ("inception_resnet_v1",),
    ),
    (
        "ResNet",
        """\
`resnet_18` to `resnet_152` are for ImageNet, `resnet_20` to `resnet_110` for CIFAR.

- `stride='v1'`, the default, halves maps in the first 1x1 convolution of a bottleneck, as the paper does;
  `stride='v1.5'` in its 3x3, as torchvision does. Parameters are the same, results are not: torchvision's weights of
  ResNet-50 and deeper need `stride='v1.5'`.
- `shortcut='projection'` (the paper's option `'B'`) or `'identity'` with zeros for new channels (`'A'`). The default is
  B for ImageNet, as in torchvision, and A for CIFAR, which torchvision does not have.
- `preactivation=True` is the network of the second paper, `zero_init_residual=True` torchvision's option of that name.
- The first pool is padded by one on each side, as in torchvision and the authors' Torch code; their Caffe models have a
  partial last window instead. Sizes are the same.
- Convolutions start with a normal distribution of variance 2 / fan-out, as in the authors' code and torchvision, the
  output layer as PyTorch's.""",
        tuple(f"resnet_{depth}" for depth in (18, 34, 50, 101, 152, 20, 32, 44, 56, 110)),
    ),
    (
        "Small",
        "No paper's: three convolutions for small pictures and few cores. torchvision has none.",
        ("small_cnn",),
    ),
    (
        "airbench",
        """\
The CIFAR-10 speed network, after KellerJordan/cifar10-airbench (airbench94). The 288 weights of its whitening layer are
not trained, so the table counts 288 parameters fewer than are published (1,971,640). They are computed from images
before training: `model.whiten.kernel[...] = airbench.whitening_kernel(images)`. The first filters of other convolutions
pass on one channel each, the rest are drawn as PyTorch does.""",
        ("airbench",),
    ),
]


def main() -> None:
    """Writes the page."""
    PAGE.write_text(page())


def page() -> str:
    """The page in Markdown."""
    return "\n".join([INTRODUCTION, *(section(*family) for family in FAMILIES)])


def section(title: str, text: str, names: tuple[str, ...]) -> str:
    """One family: what there is to say, its networks in one table, and each one's own."""
    tables = {name: rows(name) for name in names}
    lines = [f"## {title}", "", text, "", *overview(tables), ""]
    for name, found in tables.items():
        shape = "x".join(map(str, models.variant(name).input_shape))
        lines += ["<details>", f"<summary><code>{name}</code>, {shape}</summary>", "", *layers(found), ""]
        lines += ["</details>", ""]
    return "\n".join(lines)


def rows(name: str) -> list[geometry.Row]:
    """The table of a network at its published size."""
    abstract = nnx.eval_shape(lambda: models.create(name, rngs=nnx.Rngs(0)))
    return geometry.trace(abstract, models.variant(name).input_shape)


def overview(tables: dict[str, list[geometry.Row]]) -> Iterator[str]:
    """Networks by their totals."""
    yield "| network | input | classes | parameters | MACs | connections | activations |"
    yield "| --- | --- | ---: | ---: | ---: | ---: | ---: |"
    for name, found in tables.items():
        published = models.variant(name)
        *_, parameters, multiply_adds, connections, memory = geometry.cells(geometry.total(found))
        shape = "x".join(map(str, published.input_shape))
        cells = (f"`{name}`", shape, str(published.num_classes), parameters, multiply_adds, connections, memory)
        yield f"| {' | '.join(cells)} |"


def layers(found: list[geometry.Row]) -> Iterator[str]:
    """A network's blocks."""
    shown = [geometry.HEADINGS.index(column) for column in COLUMNS]
    yield f"| {' | '.join(COLUMNS)} |"
    yield f"| {' | '.join('---' if column in ('layer', 'kind') else '---:' for column in COLUMNS)} |"
    for row in [*geometry.blocks(found), geometry.total(found)]:
        cells = geometry.cells(row)
        yield f"| {' | '.join(cells[index] for index in shown)} |"


if __name__ == "__main__":
    main()
