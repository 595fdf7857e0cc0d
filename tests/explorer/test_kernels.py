"""The page's kernels compute what the layers compute: many cases in one page of a real browser."""

import base64
import json
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cnn_jax import filters, nn, ops
from cnn_jax.data.images import _border_is_lighter
from cnn_jax.data.ink import find_ink, frame_ink
from cnn_jax.errors import UsageError
from cnn_jax.explorer.graph import export, rounded_to_half
from cnn_jax.explorer.layers import FUNCTIONS
from cnn_jax.explorer.page import boundaries, image_kernels, script
from cnn_jax.models.autoencoder import unflatten
from cnn_jax.models.fcn import AddScores
from cnn_jax.models.resnet import PaddedIdentity
from cnn_jax.ops.padding import BOUNDARIES
from tests.explorer.networks import filled
from tests.report.browser import Tab

IMAGE = (7, 6, 4)
R = nnx.Rngs
VALID: Any = {"padding": "VALID"}


def conv(*args: Any, **options: Any) -> Callable[[nnx.Rngs], nn.Conv]:
    return lambda rngs: nn.Conv(4, *args, **options, rngs=rngs)


LAYERS: dict[str, Callable[[nnx.Rngs], Any]] = {
    "conv": conv(5, (3, 3)),
    "conv, more than eight channels": conv(19, (2, 3), use_bias=False),
    "conv, stride and pairs": conv(6, (3, 2), strides=(2, 3), padding=((2, 0), (1, 3))),
    "conv, ceil": conv(3, (3, 3), strides=2, padding="VALID", rounding="ceil"),
    "conv, dilated": conv(3, (3, 2), kernel_dilation=(2, 3), padding="SAME"),
    "conv, spread": conv(3, (3, 3), input_dilation=(2, 3), padding="FULL"),
    "conv, cropped": conv(3, (2, 2), padding=((-1, 1), (0, -2))),
    "conv, groups": conv(6, (3, 3), feature_group_count=2),
    "conv, depthwise": conv(8, (3, 3), feature_group_count=4),
    "conv, masked and flipped": conv(3, (3, 3), mask=np.arange(12).reshape(4, 3) % 3 > 0, flip_kernel=True),
    **{f"conv, {name}": conv(3, (5, 4), padding=9, boundary=name) for name in BOUNDARIES if name != "constant"},
    "conv, constant": conv(3, (5, 4), padding=3, boundary="constant", boundary_value=-1.5, input_dilation=2),
    "conv, periodic and spread": conv(3, (3, 3), padding=2, boundary="periodic", input_dilation=2),
    "conv, Flax's circular": conv(3, (3, 3), padding="CIRCULAR"),
    "conv local": lambda rngs: nn.ConvLocal(4, 3, (3, 3), input_size=(7, 6), strides=2, padding=1, rngs=rngs),
    "conv transpose": lambda rngs: nn.ConvTranspose(4, 3, (4, 3), strides=2, rngs=rngs),
    "conv transpose, of a kernel": lambda rngs: nn.ConvTranspose(
        4, 3, (3, 3), strides=(2, 1), padding="VALID", transpose_kernel=True, rngs=rngs
    ),
    "table conv": lambda rngs: nn.TableConv(4, [(0, 1), (3,), (0, 2, 3)], (3, 3), bias_space=(7, 6), rngs=rngs),
    "separable": lambda rngs: nn.SeparableConv(4, 5, (3, 3), strides=2, channel_multiplier=2, rngs=rngs),
    "subsampling": lambda rngs: nn.Subsampling(4, (2, 2), rngs=rngs),
    "padded identity": lambda rngs: PaddedIdentity(6, strides=(2, 2)),
    "max pool": lambda rngs: nn.MaxPool((3, 2), strides=2, padding=((1, 0), (0, 1)), rounding="ceil"),
    "max pool, dilated": lambda rngs: nn.MaxPool((2, 2), strides=1, dilation=2),
    "average pool": lambda rngs: nn.AvgPool((3, 3), strides=2, padding=1, rounding="ceil"),
    "average pool, without padding": lambda rngs: nn.AvgPool((3, 3), strides=2, padding=1, count_include_pad=False),
    "p-norm pool": lambda rngs: nn.LpPool((2, 2), p=3),
    "adaptive average pool": lambda rngs: nn.AdaptiveAvgPool((4, 3)),
    "adaptive max pool": lambda rngs: nn.AdaptiveMaxPool((3, 4)),
    "global average": lambda rngs: ops.global_avg_pool,
    "global max": lambda rngs: ops.global_max_pool,
    "nearest": lambda rngs: nn.Upsample(2),
    "bilinear": lambda rngs: nn.Upsample((2, 3), method="bilinear"),
    "corners": lambda rngs: nn.Upsample(2, method="bilinear", align_corners=True),
    "bed of nails": lambda rngs: nn.Upsample(2, method="bed_of_nails"),
    "batch norm": lambda rngs: nn.BatchNorm(4, rngs=rngs),
    "response norm": lambda rngs: nn.LocalResponseNorm(3, alpha=0.5),
    "response norm, even": lambda rngs: nn.LocalResponseNorm(2, alpha=0.5, convention="onnx"),
    "response norm of positions": lambda rngs: nn.LocalResponseNorm((3, 2), alpha=0.5, k=1, convention="torch"),
    "dropout": lambda rngs: nn.Dropout(0.5),
    "flatten": lambda rngs: nn.Flatten(IMAGE),
    "flatten function": lambda rngs: nn.flatten,
    "linear of channels": lambda rngs: nn.Linear(4, 7, rngs=rngs),
    "linear": lambda rngs: nn.Sequence({"flatten": nn.flatten, "fc": nn.Linear(168, 10, use_bias=False, rngs=rngs)}),
    "RBF": lambda rngs: nn.Sequence(
        {"flatten": nn.flatten, "rbf": nn.RBFOutput(jax.random.normal(rngs.params(), (3, 168)))}
    ),
    "scale": lambda rngs: nn.Scale(-0.25),
    "softmax": lambda rngs: jax.nn.softmax,
    **{f"function {name}": lambda rngs, f=function: f for function, name in FUNCTIONS.items()},
    "residual": lambda rngs: nn.Residual({"a": conv(4, (3, 3))(rngs)}, {"b": nn.AvgPool((3, 3), strides=1, padding=1)}),
    "residual with the identity": lambda rngs: nn.Residual({"a": conv(4, (3, 3))(rngs), "relu": ops.relu}),
    "parallel": lambda rngs: nn.Parallel(
        {"one": conv(2, (1, 1))(rngs), "three": nn.Sequence({"conv": conv(3, (3, 3))(rngs), "tanh": jnp.tanh})}
    ),
    "auxiliary": lambda rngs: nn.Auxiliary({"pool": ops.global_avg_pool}),
    "noise": lambda rngs: nn.GaussianNoise(0.5),
    "unflatten": lambda rngs: nn.Sequence({"flatten": nn.flatten, "map": partial(unflatten, shape=(4, 7, 6))}),
    "skips that are cut": lambda rngs: nn.SkipSequence(
        {
            "conv": conv(4, (3, 3), **VALID)(rngs),
            "add": nn.Add(),
            "corner": nn.Concatenate(offset=2),
            "middle": nn.Concatenate(),
        },
        {"add": "input", "corner": "input", "middle": "conv"},
    ),
    "cut": lambda rngs: nn.SkipSequence(
        {"conv": conv(4, (3, 3), padding=4)(rngs), "cut": nn.CutTo(3)}, {"cut": "input"}
    ),
    "scores of an earlier map": lambda rngs: nn.SkipSequence(
        {"conv": conv(5, (3, 3), **VALID)(rngs), "fuse": AddScores(4, 5, 2, 1, dtype=None, rngs=rngs)},
        {"fuse": "input"},
    ),
    "unpool": lambda rngs: nn.SkipSequence(
        {
            "pool": nn.MaxPool((2, 2), return_indices=True, rounding="floor"),
            "tanh": jnp.tanh,
            "unpool": nn.MaxUnpool(),
        },
        {"unpool": "pool"},
    ),
    "unpool, shared maxima": lambda rngs: nn.SkipSequence(
        {
            "pool": nn.MaxPool((3, 3), strides=2, padding=1, return_indices=True, rounding="ceil"),
            "relu": ops.relu,
            "unpool": nn.MaxUnpool(overlap="add"),
        },
        {"unpool": "pool"},
    ),
}


@pytest.fixture(scope="module")
def scripts(browser: Tab) -> Tab:
    browser.open("about:blank")
    browser.run(script() + "\n0")
    return browser


def test_every_kind_of_layer_and_the_explanation_of_one_of_its_values(scripts: Tab) -> None:
    models = {
        name: filled(lambda rngs, make=make: nn.Sequence({"before": jnp.tanh, "it": make(rngs)}))
        for name, make in LAYERS.items()
    }
    rng = np.random.default_rng(0)
    images = {name: rng.standard_normal((1, *IMAGE)).astype(np.float32) for name in models}

    @jax.jit
    def forward(images: dict[str, Any]) -> dict[str, Any]:
        return {name: model(images[name], return_activations=True)[1] for name, model in models.items()}

    expected, cases = forward(images), []
    for name, model in models.items():
        graph = export(model, IMAGE)
        names = [node.name for node in graph.nodes[1:]]
        assert set(names) == set(expected[name]), name
        for node in graph.nodes[1:]:
            assert node.shape == expected[name][node.name].shape[1:], (name, node.name)
        reference = [
            {"index": index, "stride": 1, "values": encoded(expected[name][node])}
            for index, node in enumerate(names, 1)
        ]
        cases.append({"graph": graph.to_json(), "image": encoded(images[name]), "reference": reference})
    found = scripts.run(
        json.dumps(cases)
        + """.map(({graph, image, reference}) => {
          const network = new Network(graph);
          network.run(new Float32Array(bytesOf(image).buffer));
          const { data } = network.of(graph.nodes.length - 1);
          const unit = Math.floor(data.length * 0.6);
          const { terms, rest, value, tables } = explain(network, graph.nodes.length - 1, unit);
          const sum = terms ? terms.reduce((sum, term) => sum + term.value, 0) + (rest ? rest.value : 0) : value;
          const cells = tables?.length ? tables[0].rows.flat() : [];
          const winners = cells.filter((cell) => cell.winner).map((cell) => cell.x - value);
          return [network.check(reference).difference, sum - value, winners, graph.nodes.at(-1).kind];
        })"""
    )
    for name, (difference, apart, winners, kind) in zip(models, found, strict=True):
        assert difference < 1e-5, name
        assert abs(apart) < 1e-5, name
        assert winners == ([0] if kind == "max" else []), name


def test_receptive_fields_are_where_the_gradient_is_not_zero(scripts: Tab) -> None:
    model = filled(
        lambda rngs: nn.SkipSequence(
            {
                "conv": nn.Conv(1, 2, (3, 3), strides=2, padding=1, rngs=rngs),
                "block": nn.Residual({"conv": nn.Conv(2, 2, (3, 3), kernel_dilation=2, padding=2, rngs=rngs)}),
                "valid": nn.Conv(2, 2, (3, 3), padding="VALID", rngs=rngs),
                "both": nn.Concatenate(offset=2),
                "mix": nn.Conv(4, 2, (1, 1), rngs=rngs),
                "pool": nn.AvgPool((2, 2)),
                "flatten": nn.Flatten((2, 2, 2)),
            },
            {"both": "conv"},
        )
    )
    jacobian = jax.jacobian(lambda x: model(x[None])[0])(jnp.ones((12, 12, 1)))
    network = json.dumps(export(model, (12, 12, 1)).to_json())
    found = scripts.run(f"[...Array(8).keys()].map((unit) => new Network({network}).field(8, unit))")
    for unit, field in enumerate(found):
        rows, columns = (np.flatnonzero(np.abs(jacobian[unit, ..., 0]).max(axis=axis)) for axis in (1, 0))
        assert field == {"rows": [rows[0], rows[-1]], "columns": [columns[0], columns[-1]]}


def test_image_kernels_are_ops_conv(scripts: Tab) -> None:
    image = np.random.default_rng(1).uniform(size=(11, 14)).astype(np.float32)
    kernels, cases = image_kernels(), []
    for number, (name, boundary) in enumerate([(n, b) for n in ("sobel(axis=0)", "binomial(5)") for b in boundaries()]):
        options = {"stride": 1 + number % 2, "dilation": 1 + number % 3 // 2, "flip": number % 4 > 1}
        cases.append((name, {**options, "padding": "SAME" if number % 3 else 2, "boundary": boundary}))
    found = scripts.run(
        f"""{json.dumps([[kernels[name].tolist(), options] for name, options in cases])}.map(([kernel, options]) =>
          Array.from(filtered({{data: Float32Array.from({json.dumps(image.ravel().tolist())}), height: 11, width: 14}},
          kernel, options).data))"""
    )
    for values, (name, options) in zip(found, cases, strict=True):
        expected = ops.conv(
            image[..., None],
            kernels[name][..., None, None],
            strides=options["stride"],
            padding=options["padding"],
            kernel_dilation=options["dilation"],
            boundary=options["boundary"],
            flip_kernel=options["flip"],
        )
        np.testing.assert_allclose(values, np.asarray(expected).ravel(), atol=1e-5, err_msg=str((name, options)))


def test_image_kernels_are_those_of_filters() -> None:
    kernels = image_kernels()
    left_out = {name for name in filters.KERNELS if name.startswith("gabor")}
    assert {*kernels} == {*filters.KERNELS} - left_out | {f"gabor(3, angle={angle})" for angle in (0, 45, 90, 135)}
    np.testing.assert_allclose(kernels["sobel(axis=1)"], [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    assert all(kernel.ndim == 2 for kernel in kernels.values())


def test_ink_is_found_and_framed_as_in_python(scripts: Tab) -> None:
    rng = np.random.default_rng(2)
    sheets = []
    for top, left, size in ((10, 40, 30), (50, 5, 60), (3, 3, 9)):
        paper = 60 + np.add.outer(np.arange(120) * 0.2, np.arange(100) * 0.1) + rng.uniform(0, 2, (120, 100))
        paper[top : top + size, left : left + 5] += 130
        paper[top : top + 6, left : left + size // 2] += 90
        sheets.append(np.rint(np.clip(paper, 0, 255)).astype(np.uint8))
    found = scripts.run(
        f"""{json.dumps([sheet.ravel().tolist() for sheet in sheets])}.map((values) => {{
          const plane = {{ data: Float64Array.from(values), height: 120, width: 100 }};
          return [borderIsLighter(plane), Array.from(frameInk(findInk(plane), 28, 28, 0.7)),
                  Array.from(frameInk(findInk(plane), 90, 80, 0.9))];
        }})"""
    )
    for sheet, (lighter, small, large) in zip(sheets, found, strict=True):
        ink = find_ink(sheet)
        assert ink is not None
        assert lighter == _border_is_lighter(sheet)
        expected = frame_ink(ink, height=28, width=28, extent=0.7), frame_ink(ink, height=90, width=80, extent=0.9)
        for values, wanted in zip((small, large), expected, strict=True):
            # Pillow rounds its weights to float32, so a value on the edge may fall to the other side
            assert np.abs(np.array(values) - wanted.ravel().astype(int)).max() <= 1


def test_a_flat_image_has_no_ink(scripts: Tab) -> None:
    assert scripts.run("findInk({data: new Float64Array(1600).fill(7), height: 40, width: 40})") is None


@pytest.mark.parametrize(
    ("make", "shape", "message"),
    [
        (lambda rngs: nn.MaxPool((2, 2), return_indices=True), IMAGE, "layer 'it' (MaxPool)"),
        (lambda rngs: lambda x: x + 1, IMAGE, "layer 'it' (<lambda>)"),
        (lambda rngs: nn.Residual({"own": nn.MaxUnpool((2, 2))}), IMAGE, "layer 'it/branch/own' (MaxUnpool)"),
        (lambda rngs: nn.ConvTranspose(4, 3, (3, 3), padding="CIRCULAR", rngs=rngs), IMAGE, "(ConvTranspose)"),
        (lambda rngs: nn.Conv(4, 3, (3,), rngs=rngs), (9, 4), "the explorer shows images"),
        (lambda rngs: nn.SkipSequence({"own": lambda x, y: x}, {"own": "input"}), IMAGE, "'it/own' (<lambda>)"),
        (lambda rngs: nn.SkipSequence({"un": nn.MaxUnpool()}, {"un": "input"}), IMAGE, "'it/un' (MaxUnpool)"),
    ],
)
def test_what_the_page_cannot_compute_is_refused_by_name(make: Any, shape: Any, message: str) -> None:
    model = nn.Sequence({"it": make(R(0))})
    with pytest.raises(UsageError) as raised:
        export(model, shape)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_half_precision_keeps_vectors_and_what_it_cannot_hold() -> None:
    model = filled(lambda rngs: nn.Sequence({"a": nn.Linear(3, 4, rngs=rngs), "b": nn.Linear(4, 2, rngs=rngs)}))
    model.b.kernel[...] = model.b.kernel[...] * 1e6
    half = rounded_to_half(model)
    np.testing.assert_array_equal(half.a.kernel[...], np.float16(model.a.kernel[...]).astype(np.float32))
    np.testing.assert_array_equal(half.a.bias[...], model.a.bias[...])
    np.testing.assert_array_equal(half.b.kernel[...], model.b.kernel[...])


def encoded(array: Any) -> str:
    return base64.b64encode(np.asarray(array, "<f4").tobytes()).decode()
