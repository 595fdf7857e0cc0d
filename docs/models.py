"""Writes docs/models.md: a table for each network, and its differences from torchvision.

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

`models.create(name, ...)` creates a network:

```python
from flax import nnx
from cnn_jax import models, weights

model = models.create("vgg_d", num_classes=1000, input_shape=(224, 224, 3), width=1.0, rngs=nnx.Rngs(0))
output, activations = model(images, return_activations=True)  # (batch, 224, 224, 3); activations["fc7"]
loaded = weights.load(model, "vgg16.safetensors")  # torchvision's or timm's; loaded.about has mean and std of inputs
tuned = models.replace_head(loaded.model, 10)  # ten classes, with the same features
graph, trained, frozen = nnx.split(tuned, models.trainable(tuned, ["fc8", "fc7/*"]), ...)  # trains only these
sliding = models.convolutionalize(tuned)  # for larger images: logits for every window
```

The defaults of `num_classes`, `input_shape` and `width` are those of the paper. `dtype=jnp.bfloat16` computes in
bfloat16 and keeps parameters in float32. Other keywords are the options of a network, `models.variant(name).options()`.

`python -m docs.models` computes the tables from the networks. `launch.py --mode=summary` prints the table of a config's
network with every layer, and writes it as CSV, Markdown, JSON or a figure.

In the tables below, a row is a layer that has a window or weights or changes the shape, or a whole block of layers.
*field* is the size of a unit's receptive field in the image, and *jump* the distance between the fields of neighbouring
units. *MACs* are the multiplications of weights with inputs for one image, without biases. Fields follow the formulas
and may be larger than the image.
"""

# The title, the text, and the names of the networks of each family.
FAMILIES: list[tuple[str, str, tuple[str, ...]]] = [
    (
        "Baselines",
        """\
Networks without convolutions, for comparison. The parameters of logistic regression start at zero. The kernels of
perceptrons have a standard deviation of 1 / sqrt(fan-in) (LeCun et al. 1998); their biases are zero.""",
        ("logistic_regression", "mlp_two_neurons", "mlp"),
    ),
    (
        "Autoencoder",
        """\
Convolutions that halve the sides down to a few numbers, `latent`, and transposed convolutions back to the image: the
network of the task `autoencoder`. `conv_encoder` is its encoder under a linear layer, with the same names of layers, so
that a classifier can start from a trained autoencoder (`config.model.weights`). Both are this project's own. Initial
weights follow He's rule, those of `latent` and `output` LeCun's.""",
        ("conv_autoencoder", "conv_encoder"),
    ),
    (
        "DCGAN",
        """\
Radford, Metz & Chintala 2016, the network of the task [`generation`](generation.md). `dcgan_generator` makes images of
noise, or of words and noise; `width=2.0` and `kernel_size=5` are the paper's. Its defaults have the parameters of
PyTorch's DCGAN example, as has the discriminator, `models.dcgan.DCGANDiscriminator`. Kernels start with a standard
deviation of 0.02. torchvision does not have them.""",
        ("dcgan_generator",),
    ),
    (
        "Stacks",
        "One large kernel, or several small ones with the same receptive field: the network of "
        "[a sweep](sweeps.md#kernel-size-and-depth).",
        ("conv_stack",),
    ),
    (
        "Series, sound, text and volumes",
        """\
`fcn_series` and `resnet_series` are the networks of Wang, Yan & Oates 2017, `text_cnn` is CNN-rand of Kim 2014, and
`sound_cnn` computes a mel spectrogram by convolutions and applies `small_cnn` to it. `small_cnn` and ResNet-18 also
exist for signals and volumes. Inputs are (length, channels), (samples, channels), (number of words,) and (depth,
height, width, channels); see [signals](signals.md). torchvision does not have them.""",
        ("fcn_series", "resnet_series", "small_cnn_1d", "sound_cnn", "text_cnn", "small_cnn_3d", "resnet_18_3d"),
    ),
    (
        "Neocognitron",
        """\
Fukushima 1980. It is trained by its own rule, `neocognitron.self_organize`, and not by gradients. torchvision does not
have it. Excitatory connections start with small positive values, inhibitory ones at zero.""",
        ("neocognitron",),
    ),
    (
        "LeNet",
        """\
torchvision does not have them. `lenet_1989` and `lenet_5` have the parts that later versions leave out: partial
connections, a bias for every unit (1989), trained subsampling, and an output of distances to fixed codes (1998), which
are float32 for any `dtype`. `lenet_5_modern` is the version that is taught today.

Initial weights are uniform between -2.4 / fan-in and 2.4 / fan-in, as in the papers. Those of `lenet_5_modern` have a
standard deviation of 1 / sqrt(fan-in). Biases are zero.""",
        ("lenet_1989", "lenet_1", "lenet_5", "lenet_5_modern"),
    ),
    (
        "AlexNet",
        """\
- `alexnet` is the network of 2012, in two groups, with local response normalisation and overlapping pools. Its images
  are 227x227: for 224x224 images, as the paper says, the output of its first convolution would not be 55x55.
- `alexnet_torchvision` is torchvision's, and can load its weights. It follows a later paper (Krizhevsky 2014): fewer
  channels in the first two layers, no groups, no normalisation, padding, and dropout before the linear layers.
- `alexnet_ungrouped` has no groups. `alexnet_batch_norm` has batch normalisation and no padding.

`alexnet` and `alexnet_ungrouped` are initialised as published: with a Gaussian of standard deviation 0.01, and biases
of 1 in conv2, conv4, conv5, fc6 and fc7 and of 0 elsewhere. The other two are initialised as in PyTorch, uniformly
between -1 / sqrt(fan-in) and 1 / sqrt(fan-in).""",
        ("alexnet", "alexnet_ungrouped", "alexnet_torchvision", "alexnet_batch_norm"),
    ),
    (
        "ZFNet",
        """\
torchvision does not have it. Pools include partial last windows (`rounding='ceil'`): without them the output of the
second pool would be 12x12, but in the paper it is 13x13. `zfnet_wide` has the wider last convolutions from one of the
paper's tables. Initial weights have a Gaussian distribution of standard deviation 0.01 (the paper says "initialized to
10^-2"); biases are zero.""",
        ("zfnet", "zfnet_wide"),
    ),
    (
        "VGG",
        """\
A, B, D and E are torchvision's `vgg11`, `vgg13`, `vgg16` and `vgg19`, with and without batch normalisation, and can
load their weights. torchvision has an adaptive pool to 7x7 before the linear layers, which has no effect for 224x224
images. Here another image size changes the shape of the first linear layer instead. torchvision has neither A-LRN nor
C.

A and A-LRN are initialised with a Gaussian of standard deviation 0.01. The paper calls this number the variance, but
then the logits of a normalised image would start at about two million. B to E are initialised with Glorot and Bengio's
uniform rule. The paper initialised them with layers of a trained A, and remarks that this rule makes that unnecessary.
The networks `*_bn`, which are not in the paper, use He's normal rule. Biases are zero. torchvision initialises all of
them with He's rule for the fan-out, and linear layers with a Gaussian of standard deviation 0.01.""",
        tuple(f"vgg_{letter}{bn}" for letter in ("a", "a_lrn", "b", "c", "d", "e") for bn in ("", "_bn")),
    ),
    (
        "Segmentation",
        """\
Scores of every pixel, `(batch, *space, classes)`, for inputs with any number of spatial axes; see
[segmentation](segmentation.md).

- `u_net` is the paper's network, without padding: an input has 16 b + 124 pixels along each axis, the output 16 b - 60.
  `u_net_padded` keeps the size. Kernels are drawn by He's normal rule, as in the paper.
- `segnet` unpools with the positions of the maxima that the encoder found.
- `voxel_classifier` is a linear classifier on fixed filter responses: Gaussians, derivatives and Laplacians at several
  scales, their maxima in a neighbourhood, and the place in the image. It has no published size.
- `fcn_32s`, `fcn_16s` and `fcn_8s` are VGG's net D with convolutions for its linear layers. Maps are cut where the
  published networks cut them. Transposed convolutions start as bilinear interpolation, and scores at zero.""",
        ("u_net", "u_net_padded", "segnet", "fcn_32s", "fcn_16s", "fcn_8s", "voxel_classifier"),
    ),
    (
        "Image to image",
        """\
The generator of CycleGAN: two convolutions with stride 2, residual blocks and two transposed convolutions, with
instance normalisation; see [images from images](image_to_image.md#cyclegan). Weights are drawn with a standard
deviation of 0.02, as in the paper. Fields are those of the values, without the statistics of the normalisation.""",
        ("resnet_generator",),
    ),
    (
        "Boxes",
        """\
Networks on the layers of another one, the `backbone`; see [detection](detection.md). Their sizes are this project's
own.

- `detector` has a map of cells, with a score for each class and four numbers of a box in each (CenterNet). Maps of
  several scales are joined as in feature pyramid networks.
- `localizer` has one score for each class and one box for each image. With `separate`, the box head does not train the
  layers that both heads share.""",
        ("detector", "localizer"),
    ),
    (
        "Captions",
        """\
The layers of a classification network, the `backbone`, up to a map, and a decoder that writes words about it; see
[captioning](captioning.md). The decoder has convolutions over the words before each place and gated linear units
(Gehring et al. 2017, Aneja et al. 2018), and in each block attention over the cells of the map (Xu et al. 2015). Its
sizes are this project's own. The table is for writing a caption of the greatest length by greedy search, in which the
whole decoder is computed for each word.""",
        ("captioner",),
    ),
    (
        "GoogLeNet",
        """\
- `googlenet` is the paper's network: a 5x5 window in the branch of that name, local response normalisation, biases, and
  pools of 3x3.
- `googlenet_torchvision` is torchvision's, and can load its weights: a 3x3 window in the branch called 5x5 (a mistake
  in torchvision that its published weights made permanent), batch normalisation with epsilon 0.001 and no biases, a
  fourth pool of 2x2, and auxiliary heads that average to 4x4 for any image size.
- `inception_naive` is GoogLeNet with the paper's naïve blocks, without 1x1 reductions. Each pool passes on all its
  channels, so their number grows from block to block. It is for comparisons of costs.

The tables are for inference. The two auxiliary heads, which run in training only, have 6,379,728 additional parameters
(6,379,984 in torchvision's version). torchvision returns their logits from a call in training mode; here they are among
the activations.

The paper does not specify initial values, so they follow Caffe's version: kernels are uniform with variance 1 / fan-in,
and biases are 0.2, except 0 in the output layers. torchvision's kernels are drawn from a normal distribution of
standard deviation 0.01, truncated at two standard deviations.""",
        ("googlenet", "googlenet_torchvision", "inception_naive"),
    ),
    (
        "Inception-ResNet",
        """\
`inception_resnet_v1` follows the figures of Szegedy et al. 2016. torchvision does not have it; timm has the larger v2.
Kernels are drawn with variance 2 / fan-in, as in the authors' code.""",
        ("inception_resnet_v1",),
    ),
    (
        "ResNet",
        """\
`resnet_18` to `resnet_152` are for ImageNet, `resnet_20` to `resnet_110` for CIFAR.

- `stride='v1'`, the default, has stride 2 in the first 1x1 convolution of a bottleneck, as in the paper.
  `stride='v1.5'` has it in the 3x3 convolution, as in torchvision. The parameters are the same, but the outputs differ:
  torchvision's weights of ResNet-50 and deeper need `stride='v1.5'`.
- `shortcut='projection'` (the paper's option `'B'`) or `'identity'` with zeros for new channels (`'A'`). The default is
  B for ImageNet, as in torchvision, and A for CIFAR. torchvision does not have the CIFAR networks.
- `preactivation=True` is the network of the second paper. `zero_init_residual=True` is torchvision's option of that
  name.
- The first pool is padded by one on each side, as in torchvision and the authors' Torch code. Their Caffe models have a
  partial last window instead. The sizes are the same.
- Convolutions are drawn from a normal distribution of variance 2 / fan-out, as in the authors' code and torchvision.
  The output layer is initialised as in PyTorch.""",
        tuple(f"resnet_{depth}" for depth in (18, 34, 50, 101, 152, 20, 32, 44, 56, 110)),
    ),
    (
        "Small",
        "Three convolutions, for small images and few CPU cores. It is not from a paper, and torchvision does not have "
        "it.",
        ("small_cnn",),
    ),
    (
        "airbench",
        """\
The network of KellerJordan/cifar10-airbench (airbench94), for fast training on CIFAR-10. The 288 weights of its
whitening layer are not trained, so the table has 288 parameters fewer than published (1,971,640). They are computed
from images before training: `model.whiten.kernel[...] = airbench.whitening_kernel(images)`. The first filters of the
other convolutions pass on one channel each; the remaining ones are drawn as in PyTorch.""",
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
    """The section of one family: the text, a table of its networks, and the table of each network."""
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
    """The lines of a table with the totals of each network."""
    yield "| network | input | classes | parameters | MACs | connections | activations |"
    yield "| --- | --- | ---: | ---: | ---: | ---: | ---: |"
    for name, found in tables.items():
        published = models.variant(name)
        *_, parameters, multiply_adds, connections, memory = geometry.cells(geometry.total(found))
        shape = "x".join(map(str, published.input_shape))
        cells = (f"`{name}`", shape, str(published.num_classes), parameters, multiply_adds, connections, memory)
        yield f"| {' | '.join(cells)} |"


def layers(found: list[geometry.Row]) -> Iterator[str]:
    """The lines of a table with a network's blocks and layers."""
    shown = [geometry.HEADINGS.index(column) for column in COLUMNS]
    yield f"| {' | '.join(COLUMNS)} |"
    yield f"| {' | '.join('---' if column in ('layer', 'kind') else '---:' for column in COLUMNS)} |"
    for row in [*geometry.blocks(found), geometry.total(found)]:
        cells = geometry.cells(row)
        yield f"| {' | '.join(cells[index] for index in shown)} |"


if __name__ == "__main__":
    main()
