import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from cnn_jax.errors import UsageError
from cnn_jax.report.figures import feature_maps, filters, mistakes
from cnn_jax.report.figures.style import BLUE, VERMILLION, as_rgb
from tests.report.pngs import picture, pixels, texts

RNG = np.random.default_rng(0)


def labels_of(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.texts]


def images_of(figure: Figure) -> list[np.ndarray]:
    return [np.asarray(image.get_array()) for axes in figure.axes for image in axes.images]


def test_a_grey_filter_is_grey_where_it_is_zero_and_white_where_it_is_largest() -> None:
    kernel = np.zeros((2, 2, 1, 2))
    kernel[0, 1, 0, 0], kernel[1, 0, 0, 1] = -0.5, 0.25
    figure = filters(kernel)
    first, second = images_of(figure)
    np.testing.assert_allclose(first[..., 0], [[0.5, 0.0], [0.5, 0.5]])
    np.testing.assert_allclose(second[..., 0], [[0.5, 0.5], [0.75, 0.5]])
    assert labels_of(figure) == ["black -0.5, grey 0, white +0.5"]


def test_a_colour_filter_keeps_its_channels() -> None:
    kernel = RNG.normal(size=(3, 3, 3, 5))
    images = images_of(filters(kernel))
    assert len(images) == 5
    np.testing.assert_allclose(images[4], 0.5 + kernel[..., 4] / (2 * np.abs(kernel).max()))


def test_filters_of_other_channels_are_rows_of_grey_pictures() -> None:
    kernel = RNG.normal(size=(3, 5, 4, 2))
    images = images_of(filters(kernel))
    assert len(images) == 8
    np.testing.assert_allclose(images[4 + 2][..., 1], 0.5 + kernel[:, :, 2, 1] / (2 * np.abs(kernel).max()))


@pytest.mark.parametrize(
    ("shape", "pictures", "note"),
    [
        ((11, 11, 3, 96), 64, "first 64 of 96 filters; "),
        ((3, 3, 64, 64), 64, "first 8 of 64 filters; first 8 of 64 channels; "),
        ((1, 7, 1, 3), 3, "black"),
    ],
)
def test_what_is_left_out_is_counted(shape: tuple[int, ...], pictures: int, note: str) -> None:
    figure = filters(RNG.normal(size=shape))
    assert len(images_of(figure)) == pictures
    assert labels_of(figure)[0].startswith(note)


@pytest.mark.parametrize(
    ("kernel", "options", "message"),
    [
        (np.ones((5, 5, 6)), {}, r"kernel has shape \(5, 5, 6\); it must be \(height"),
        (np.ones((5, 5, 0, 6)), {}, r"\(5, 5, 0, 6\)"),
        (np.ones((5, 5, 1, 6)), {"max_filters": 0}, "max_filters=0 must be at least 1"),
    ],
)
def test_filters_reject(kernel: np.ndarray, options: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        filters(kernel, **options)


def test_every_channel_and_unit_of_every_layer_is_drawn_on_its_layers_scale() -> None:
    maps, pooled, logits = RNG.normal(size=(8, 6, 4)), RNG.normal(size=(1, 1, 12)), RNG.normal(size=10)
    figure = feature_maps(np.zeros((16, 12, 1)), {"conv": maps, "pool": pooled, "logits": logits})
    image, channels, strip, last = figure.axes
    assert picture(image).shape == (16, 12, 3)
    assert len(channels.images) == 4
    for index, drawn in enumerate(channels.images):
        np.testing.assert_array_equal(drawn.get_array(), maps[..., index])
        assert drawn.get_clim() == (-np.abs(maps).max(), np.abs(maps).max())
    np.testing.assert_array_equal(picture(strip), pooled.reshape(1, 12))
    np.testing.assert_array_equal(picture(last), logits[None])
    assert last.images[0].get_clim()[1] == np.abs(logits).max()


def test_layers_are_named_with_their_shapes_from_the_top_down() -> None:
    figure = feature_maps(np.zeros((16, 12, 1)), {"conv": np.ones((8, 6, 40)), "dense": np.zeros(84)})
    names = [
        text.get_text()
        for text in sorted(figure.texts, key=lambda text: (-text.get_position()[1], text.get_position()[0]))
    ]
    times = "\N{MULTIPLICATION SIGN}"
    assert names[:6] == [
        "input",
        f"16{times}12{times}1",
        "conv",
        f"8{times}6{times}40, first 16 shown, ±1",
        "dense",
        "84, ±1",
    ]
    assert [len(axes.images) for axes in figure.axes] == [1, 16, 1]
    tops = [axes.get_position().y1 for axes in figure.axes]
    assert tops[0] > tops[1] > tops[-1] > 0


def test_images_stay_in_the_figure_and_do_not_overlap() -> None:
    sizes = {"wide": (4, 40, 9), "tall": (40, 4, 3), "one": (5, 5, 1), "deep": (2, 2, 64)}
    figure = feature_maps(np.zeros((10, 30, 3)), {name: np.zeros(size) for name, size in sizes.items()})
    extents = ((axes, image.get_extent()) for axes in figure.axes for image in axes.images)
    boxes = [
        Bbox.from_extents(left, lower, right, upper).transformed(axes.transData - figure.transFigure)
        for axes, (left, right, lower, upper) in extents
    ]
    assert len(boxes) == 1 + 9 + 3 + 1 + 16
    assert all(box.x0 >= -1e-9 and box.x1 <= 1 + 1e-9 and box.y0 >= -1e-9 and box.y1 <= 1 + 1e-9 for box in boxes)
    for index, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[index + 1 :])


def test_classes_are_written_under_the_last_strip_where_there_is_room() -> None:
    image, logits = np.zeros((4, 4, 1)), {"hidden": np.zeros(3), "logits": np.zeros(3)}
    hidden, last = feature_maps(image, logits, class_names=["cat", "dog", "owl"]).axes[1:]
    assert [label.get_text() for label in last.get_xticklabels()] == ["cat", "dog", "owl"]
    assert list(hidden.get_xticks()) == []
    crowded = feature_maps(image, logits, class_names=["a name that is far too long for a third of it"] * 3)
    assert list(crowded.axes[-1].get_xticks()) == []


def test_maps_with_infinities_are_scaled_by_what_is_finite() -> None:
    figure = feature_maps(np.zeros((4, 4, 1)), {"conv": np.array([[[np.inf], [-3.0]], [[np.nan], [1.0]]])})
    assert figure.axes[1].images[0].get_clim() == (-3, 3)
    assert pixels(figure).std() > 0


@pytest.mark.parametrize(
    ("image", "activations", "message"),
    [
        (np.zeros((4, 0)), {}, r"image has shape \(4, 0\); it must be \(height, width, channels\)"),
        (np.zeros((4, 4, 1)), {"conv": np.zeros((1, 4, 4, 2))}, r"conv has shape \(1, 4, 4, 2\)"),
        (np.zeros((4, 4, 1)), {"conv": np.zeros((4, 4, 0))}, "each at least 1"),
    ],
)
def test_feature_maps_reject(image: np.ndarray, activations: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        feature_maps(image, activations)


def test_the_mistakes_are_those_whose_truth_was_least_likely() -> None:
    classes, n = 5, 40
    probabilities = RNG.dirichlet(np.ones(classes), size=n)
    labels, predictions = RNG.integers(0, classes, n), probabilities.argmax(axis=1)
    images = RNG.integers(0, 256, (n, 6, 6, 3)).astype(np.uint8)
    names = ["ant", "bee", "cat", "dog", "elk"]
    figure = mistakes(images, labels, predictions, probabilities, names, most=6)
    wrong = [i for i in range(n) if labels[i] != predictions[i]]
    expected = sorted(wrong, key=lambda i: float(-np.log(probabilities[i, labels[i]])), reverse=True)[:6]
    assert [int(text[1:]) for text in labels_of(figure) if text.startswith("#")] == expected
    for index, image, bars in zip(expected, figure.axes[::2], figure.axes[1::2], strict=True):
        np.testing.assert_allclose(picture(image), images[index] / 255)
        written = dict(zip(texts(bars)[::2], texts(bars)[1::2], strict=True))
        assert len(written) == 3
        for name in (names[labels[index]], names[predictions[index]]):
            share = probabilities[index, names.index(name)]
            assert written[name] == (f"{share:.1%}" if share < 0.1 else f"{share:.0%}")
        [true] = [text.get_text() for text in bars.texts if text.get_weight() == "bold"]
        assert true == names[labels[index]]


def test_the_truth_is_blue_and_the_prediction_vermillion() -> None:
    figure = mistakes(
        np.zeros((1, 2, 2, 1)), np.array([2]), np.array([0]), np.array([[0.5, 0.3, 0.2]]), ["a", "b", "c"]
    )
    bars = figure.axes[1]
    assert texts(bars) == ["a", "50%", "b", "30%", "c", "20%"]
    widths = [bar.get_width() for bar in bars.patches[1::2]]  # every other patch is the background of its bar
    np.testing.assert_allclose(widths, [0.5, 0.3, 0.2])
    from matplotlib.colors import to_rgba

    assert bars.patches[1].get_facecolor() == to_rgba(VERMILLION)
    assert bars.patches[5].get_facecolor() == to_rgba(BLUE)


def test_no_mistake_is_said_in_words() -> None:
    figure = mistakes(np.zeros((3, 2, 2, 1)), np.zeros(3, int), np.zeros(3, int), np.ones((3, 1)), ["only"])
    assert labels_of(figure) == ["No mistakes among 3 examples."]
    assert figure.axes == []


def test_long_names_do_not_run_into_the_numbers() -> None:
    names = [f"WWWWWWWWWWWW {i}" for i in range(100)]
    probabilities = np.full((2, 100), 0.5 / 98)
    probabilities[:, :2] = 0.25
    figure = mistakes(
        np.zeros((2, 4, 4, 5)), np.array([1, 0]), np.array([0, 1]), probabilities, [n.lower() for n in names]
    )
    figure.canvas.draw()
    for bars in figure.axes[1::2]:
        boxes = [text.get_window_extent() for text in bars.texts]
        assert not any(name.overlaps(value) for name, value in zip(boxes[::2], boxes[1::2], strict=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.zeros(2, int)}, r"labels has shape \(2,\); for 3 images and 2 classes it must be \(3,\)"),
        ({"probabilities": np.ones((3, 4))}, r"probabilities has shape \(3, 4\)"),
        ({"labels": np.array([0, 1, 2])}, "labels range from 0 to 2, but there are 2 class names"),
        ({"predictions": np.array([-1, 0, 0])}, "predictions range from -1 to 0"),
        ({"labels": np.zeros(3)}, "labels must be whole numbers, not float64"),
        ({"images": np.zeros((3, 4, 4))}, r"each image has shape \(4, 4\)"),
        ({"most": 0}, "most=0 must be at least 1"),
    ],
)
def test_mistakes_reject(change: dict[str, np.ndarray], message: str) -> None:
    arguments = {
        "images": np.zeros((3, 4, 4, 1)),
        "labels": np.array([0, 1, 0]),
        "predictions": np.array([1, 1, 0]),
        "probabilities": np.full((3, 2), 0.5),
        "class_names": ["a", "b"],
    }
    with pytest.raises(UsageError, match=message):
        mistakes(**{**arguments, **change})


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (np.array([[[0], [255]]], np.uint8), [[[0] * 3, [1] * 3]]),
        (np.array([[[True], [False]]]), [[[1] * 3, [0] * 3]]),
        (np.array([[[0.2, 0.4, 0.6]]]), [[[0.2, 0.4, 0.6]]]),
        (np.array([[[-1.0], [3.0], [1.0]]]), [[[0] * 3, [1] * 3, [0.5] * 3]]),
        (np.array([[[0.2, 0.6]]]), [[[0.4] * 3]]),
        (np.array([[[0.0, 0.5, 0.5, 1.0]]]), [[[0.5] * 3]]),
        (np.array([[[7.0], [7.0]]]), [[[0] * 3, [0] * 3]]),
        (np.array([[[np.nan], [0.5]]]), [[[0] * 3, [0.5] * 3]]),
    ],
)
def test_pictures_of_any_type_and_channels_become_rgb(image: np.ndarray, expected: list) -> None:
    np.testing.assert_allclose(as_rgb(image), expected)
