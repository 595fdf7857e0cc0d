"""A wrong type for any public function of data, weights, sweep and report is one line that names the argument."""

import inspect
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jaxtyping import Array, Float, Key
from ml_collections import ConfigDict

from cnn_jax import data, models, weights
from cnn_jax.data import augment
from cnn_jax.errors import UsageError
from cnn_jax.metrics import Metric
from cnn_jax.report import arithmetic, figures, formatting, page, summary
from cnn_jax.report import sweep as sweep_page
from cnn_jax.sweep import notation, samplers, settings, space, table
from cnn_jax.typed import described, fits, typed

IMAGES = np.zeros((2, 8, 8, 1), np.uint8)
BATCH = jnp.zeros((2, 8, 8, 1))
LABELS = np.zeros(2, np.int32)
DIGITS = data.Dataset.of_images("made", "train", IMAGES, LABELS, ("a", "b"))
RECORDS = data.as_records(DIGITS)
MODEL = nnx.eval_shape(lambda: models.create("mlp_two_neurons", rngs=nnx.Rngs(0)))
KEY = jax.random.key(0)
DRAWN = arithmetic.arithmetic((3, 3), (2, 2))
ACCURACY = Metric("validation/accuracy", "higher", "%")
CHANGED = {"key": KEY, "images": BATCH}
SWEEP = {"config": ConfigDict(), "space": space.choice("seed", [0]), "train": "a:b", "metric": ACCURACY, "points": 1}

# Each function with arguments of which one has a wrong type, and that argument.
WRONG: list[tuple[Callable[..., Any], dict[str, Any] | tuple[Any, ...], str]] = [
    (data.BorderWeights, {"label": "mask", "weight": "10", "sigma": 5.0}, "weight"),
    (data.Dataset, {"name": "a", "split": "b", "fields": {"image": [1, 2]}, "spec": {}}, "fields"),
    (data.Dataset, {"name": "a", "split": "b", "fields": IMAGES, "spec": {}}, "fields"),
    (data.Field, {"kind": 3}, "kind"),
    (data.Field, {"kind": "label", "class_names": "ab"}, "class_names"),
    (data.Field, {"kind": "image", "shape": 8}, "shape"),
    (data.Preprocess, {"input_shape": 8, "mean": (0.0,), "std": (1.0,)}, "input_shape"),
    (data.Preprocess, {"input_shape": (8, 8, 1), "mean": 0.0, "std": (1.0,)}, "mean"),
    (data.Records, {**vars(RECORDS), "count": "2"}, "count"),
    (data.Stream, {"dataset": IMAGES}, "dataset"),
    (data.as_records, {"dataset": IMAGES}, "dataset"),
    (data.batch_indices, {"key": 0, "first_step": 0, "num_steps": 1, "num_examples": 9, "batch_size": 3}, "key"),
    (data.border_weights, {"classes": [[0, 1]], "weight": 10.0, "sigma": 5.0}, "classes"),
    (
        data.captioned_canvases,
        {"items": DIGITS, "nouns": [], "split": "test", "count": 1, "side": "48", "item_sides": (8, 8)},
        "side",
    ),
    (data.choose_loading, {"loading": None, "num_bytes": 10}, "loading"),
    (data.chosen_classes, {"name": "a", "class_names": "ab", "classes": (0, 1)}, "class_names"),
    (data.chosen_classes, {"name": "a", "class_names": ("a", "b"), "classes": ("0", "1")}, "classes"),
    (data.combinations_of, {"split": "test", "classes": "10"}, "classes"),
    (data.count_shared, {"trained": DIGITS, "scored": "test"}, "scored"),
    (data.epoch_order, {"key": KEY, "epoch": "0", "num_examples": 9}, "epoch"),
    (data.find_images, {"paths": "a.png"}, "paths"),
    (data.find_images, {"paths": 3}, "paths"),
    (data.folder_white, {"name": 3}, "name"),
    (data.framed, {"array": IMAGES, "sizes": 8}, "sizes"),
    (
        data.from_boxes,
        {"name": "a", "split": "b", "images": [1], "boxes": [], "labels": [], "class_names": ()},
        "images",
    ),
    (data.paste_digit, {"generator": 0, "digits": DIGITS, "sides": (2, 4), "canvas": (8, 8)}, "generator"),
    (data.from_arrays, {"name": "a", "split": "b", "fields": {"x": IMAGES}, "spec": "image"}, "spec"),
    (data.is_nifti, {"file": "a.nii"}, "file"),
    (data.known_spec, {"name": "digits", "split": None}, "split"),
    (data.load, {"name": 3, "split": "train"}, "name"),
    (data.load, {"name": "digits", "split": 3}, "split"),
    (data.load, {"name": "digits", "split": "train", "image_shape": "8x8"}, "image_shape"),
    (data.load, {"name": "digits", "split": "train", "data_dir": 3}, "data_dir"),
    (data.measure_ink_extent, {"images": None}, "images"),
    (data.measure_ink_pieces, {"images": "a.png"}, "images"),
    (data.open_masks, {"path": 3, "split": "train", "image_shape": (8, 8, 1)}, "path"),
    (data.open_set, {"name": "digits", "split": "train", "ignore_label": "255"}, "ignore_label"),
    (data.padded_batches, {"num_examples": 9, "batch_size": 2.5}, "batch_size"),
    (data.read_image, {"path": b"a.png", "height": 8, "width": 8, "channels": 1}, "path"),
    (data.read_image, {"path": "a.png", "height": "8", "width": 8, "channels": 1}, "height"),
    (data.read_image, {"path": "a.png", "height": 8, "width": 8, "channels": 1, "invert": "yes"}, "invert"),
    (data.read_sound, {"file": 3}, "file"),
    (data.read_volume, {"path": None}, "path"),
    (data.read_whole, {"path": "a.png", "channels": None}, "channels"),
    (data.sample, {"found": DIGITS, "most": "5"}, "most"),
    (data.save_npz, {"path": 3, "parts": {"all": DIGITS}}, "path"),
    (data.save_npz, {"path": "a.npz", "parts": DIGITS}, "parts"),
    (data.stem_of, {"file": "a.png"}, "file"),
    (data.steps_per_epoch, {"num_examples": "9", "batch_size": 3}, "num_examples"),
    (data.unpaired, {"name": "a", "split": "train", "domains": [IMAGES, IMAGES]}, "domains"),
    (data.with_field, {"found": DIGITS, "name": "x", "field": "label", "derive": len}, "field"),
    (data.with_field, {"found": DIGITS, "name": "x", "field": data.Field("label"), "derive": LABELS}, "derive"),
    (data.write_label_volume, {"path": "a.nii", "classes": [[0]], "like": "b.nii"}, "classes"),
    (augment.Augmentation, {"calls": "flip"}, "calls"),
    (augment.Augmentation, {"calls": ("flip", 3)}, "calls"),
    (augment.Fields, {"arrays": IMAGES, "spec": {}}, "arrays"),
    (augment.affine, CHANGED | {"rotation": "15"}, "rotation"),
    (augment.alternating_flip, CHANGED | {"indices": [0, 1], "epoch": 0}, "indices"),
    (augment.average_logits, {"logits": [[1.0]]}, "logits"),
    (augment.brightness, CHANGED | {"strength": None}, "strength"),
    (augment.check_test_time, {"name": 3}, "name"),
    (augment.color_covariance, {"images": None}, "images"),
    (augment.color_pca, CHANGED | {"covariance": 0.5}, "covariance"),
    (augment.contrast, CHANGED | {"strength": (0.1, 0.2)}, "strength"),
    (augment.cutmix, CHANGED | {"labels": LABELS, "alpha": "1"}, "alpha"),
    (augment.cutout, CHANGED | {"size": 2.5}, "size"),
    (augment.elastic, CHANGED | {"mode": 0}, "mode"),
    (augment.example_keys, {"key": KEY, "count": None}, "count"),
    (augment.flip, {"key": 0, "images": BATCH}, "key"),
    (augment.flip, {"key": KEY, "images": "a.png"}, "images"),
    (augment.flip, CHANGED | {"probability": True}, "probability"),
    (augment.mirror, {"images": None}, "images"),
    (augment.mixup, CHANGED | {"labels": [0, 1]}, "labels"),
    (augment.pad_and_crop, CHANGED | {"padding": "4"}, "padding"),
    (augment.random_crop, CHANGED | {"size": 4}, "size"),
    (augment.random_resized_crop, CHANGED | {"scale": 0.5}, "scale"),
    (augment.saturation, CHANGED | {"strength": "0.4"}, "strength"),
    (augment.ten_crop, {"images": BATCH, "size": 4}, "size"),
    (augment.test_time_views, {"name": None, "images": BATCH, "size": (4, 4)}, "name"),
    (weights.About, {"architecture": 3}, "architecture"),
    (weights.About, {"mean": 0.5, "std": 0.5}, "mean"),
    (weights.About, {"options": ["stride"]}, "options"),
    (weights.About, {"class_names": "ab"}, "class_names"),
    (weights.About.from_metadata, {"metadata": None}, "metadata"),
    (weights.About.from_timm, {"config": "config.json"}, "config"),
    (weights.Loaded, {"model": MODEL, "about": {}, "layout": "cnn_jax"}, "about"),
    (weights.create, {"path_or_name": None}, "path_or_name"),
    (weights.create, {"path_or_name": "a.safetensors", "num_classes": "10"}, "num_classes"),
    (weights.load, {"model": "vgg_d", "path_or_name": "a.safetensors"}, "model"),
    (weights.load, {"model": MODEL, "path_or_name": 3}, "path_or_name"),
    (weights.load, {"model": MODEL, "path_or_name": "a.safetensors", "key": 3}, "key"),
    (weights.load, {"model": MODEL, "path_or_name": "a.safetensors", "adapt": "yes"}, "adapt"),
    (weights.save, {"model": MODEL, "path": None}, "path"),
    (weights.save, {"model": {"kernel": IMAGES}, "path": "a.safetensors"}, "model"),
    (weights.save, {"model": MODEL, "path": "a.safetensors", "about": {"mean": (0.5,)}}, "about"),
    (weights.to_torch, {"model": None}, "model"),
    (notation.parse, {"text": None}, "text"),
    (samplers.check, {"sampler": None, "pruner": "none"}, "sampler"),
    (settings.Sweep, SWEEP | {"points": "3"}, "points"),
    (settings.Sweep, SWEEP | {"metric": "validation/accuracy"}, "metric"),
    (settings.SweepPlace, {"directory": "runs/a"}, "directory"),
    (settings.read_sweep_file, {"directory": "runs/a"}, "directory"),
    (space.check, {"part": {"seed": [0]}, "config": ConfigDict()}, "part"),
    (space.choice, {"name": "seed", "values": 3}, "values"),
    (space.choice, {"name": "optimizer.name", "values": "sgd"}, "values"),
    (space.grid, {"part": [0, 1]}, "part"),
    (space.integers, {"name": "seed", "low": 0, "high": 1.5}, "high"),
    (space.log_uniform, {"name": "rate", "low": "1e-3", "high": 1.0}, "low"),
    (space.product, ("seed",), "parts"),
    (space.sweep, {"name": 3, "values": [0]}, "name"),
    (space.sweep, {"name": "seed", "values": 3}, "values"),
    (space.uniform, {"name": 3, "low": 0.0, "high": 1.0}, "name"),
    (space.when, (None, 3, space.choice("seed", [0])), "name"),
    (space.zipit, (3,), "parts"),
    (table.read_table, {"directory": "runs/a"}, "directory"),
    (arithmetic.arithmetic, {"input_size": "5x5", "kernel_size": (3, 3)}, "input_size"),
    (arithmetic.arithmetic, {"input_size": 5, "kernel_size": (3, 3)}, "input_size"),
    (arithmetic.to_gif, {"found": DRAWN, "milliseconds": "700"}, "milliseconds"),
    (arithmetic.to_html, {"found": IMAGES}, "found"),
    (arithmetic.to_svg, {"found": None}, "found"),
    (arithmetic.write, {"path": "a.gif", "found": DRAWN}, "path"),
    (figures.attributions, {"images": IMAGES, "pictures": [IMAGES], "titles": ["a", "b"]}, "pictures"),
    (figures.box_colours, {"count": "2"}, "count"),
    (figures.captioned_image, {"image": IMAGES[0], "caption": ["a", "bag"]}, "caption"),
    (figures.code_map, {"points": [[0.0, 1.0]], "labels": None, "class_names": []}, "points"),
    (figures.confusion_matrix, {"counts": [[1, 0], [0, 1]], "class_names": ["a", "b"]}, "counts"),
    (figures.confusion_matrix, {"counts": np.eye(2, dtype=int), "class_names": "ab"}, "class_names"),
    (figures.errors, {"rows": [("a", "0.1", None)]}, "rows"),
    (figures.feature_maps, {"image": IMAGES[0], "activations": [IMAGES[0]]}, "activations"),
    (figures.filters, {"kernel": None}, "kernel"),
    (figures.filters, {"kernel": IMAGES, "max_filters": 2.5}, "max_filters"),
    (figures.gallery, {"images": [*IMAGES], "titles": "ab"}, "titles"),
    (figures.grid_of_images, {"images": [IMAGES]}, "images"),
    (figures.heat_map, {"cells": {}, "x_label": "x", "y_label": "y", "metric": "accuracy"}, "metric"),
    (figures.tinted, {"image": IMAGES[0], "masks": [[True]], "colours": ["red"]}, "masks"),
    (figures.images_with_boxes, {"images": IMAGES, "boxes": [[3], [3]], "titles": ["a", "b"]}, "boxes"),
    (figures.learning_curves, {"rows": [3], "metrics": [ACCURACY]}, "rows"),
    (figures.learning_curves, {"rows": [], "metrics": ["accuracy"]}, "metrics"),
    (
        figures.mistakes,
        {
            "images": IMAGES,
            "labels": [0, 1],
            "predictions": LABELS,
            "probabilities": np.ones((2, 2)),
            "class_names": ["a", "b"],
        },
        "labels",
    ),
    (figures.network, {"rows": "mlp", "input_shape": (8, 8, 1)}, "rows"),
    (figures.optimisation, {"rows": None}, "rows"),
    (figures.overlay, {"image": IMAGES[0], "classes": [[0]], "count": 2}, "classes"),
    (figures.overlay_of_boxes, {"image": "a.png", "boxes": []}, "image"),
    (figures.panels_of_lines, {"panels": [], "y_labels": ("a", "b")}, "panels"),
    (figures.precision_recall, {"curves": {"a": LABELS}}, "curves"),
    (
        figures.predicted_images,
        {"inputs": [IMAGES[0]], "truth": [IMAGES[0]], "predictions": ["a.png"], "titles": ["a"]},
        "predictions",
    ),
    (figures.predicted_values, {"true": np.ones((2, 1)), "predicted": None, "names": ["a"]}, "predicted"),
    (figures.reliability, {"count": LABELS, "confidence": LABELS, "correct": [0.5]}, "correct"),
    (figures.rows_of_images, {"rows": IMAGES}, "rows"),
    (
        figures.segmentations,
        {"images": None, "truth": [], "predictions": [], "class_names": [], "titles": []},
        "images",
    ),
    (figures.signals, {"rows": [LABELS]}, "rows"),
    (figures.spreads, {"series": [], "x_label": "x", "y_label": "y"}, "series"),
    (figures.strongest_crops, {"channels": [IMAGES]}, "channels"),
    (
        figures.words_with_attention,
        {"images": [IMAGES[0]], "words": [["a"]], "attention": 3, "titles": ["a"]},
        "attention",
    ),
    (figures.views, {"array": [[0.0]]}, "array"),
    (formatting.format_duration, {"seconds": "3"}, "seconds"),
    (formatting.format_shares, {"shares": 0.5}, "shares"),
    (formatting.short_names, {"keys": "seed"}, "keys"),
    (formatting.shortened, {"names": ["a"], "fits": 3}, "fits"),
    (page.Headline, {"label": "accuracy", "value": 0.5}, "value"),
    (page.Page, {"title": None}, "title"),
    (page.Page, {"title": "a", "sections": ["text"]}, "sections"),
    (page.Page.write, {"self": page.Page("a"), "workdir": 3}, "workdir"),
    (page.Section, {"title": "a", "text": 3}, "text"),
    (page.Section, {"title": "a", "figure": IMAGES}, "figure"),
    (page.Table, {"columns": "ab", "rows": []}, "columns"),
    (page.Table, {"columns": ["a"], "rows": [[None]]}, "rows"),
    (summary.check_path, {"path": 3}, "path"),
    (summary.write, {"path": "a.csv", "rows": ["c1"], "title": "a", "input_shape": (8, 8, 1)}, "rows"),
    (sweep_page.write_sweep, {"workdir": "runs/a", "rows": [], "title": "a", "metric": ACCURACY}, "workdir"),
    (sweep_page.write_sweep, {"workdir": Path("a"), "rows": [3], "title": "a", "metric": ACCURACY}, "rows"),
]

PUBLIC = [getattr(module, name) for module in (data, augment, weights, figures) for name in module.__all__]
RESULTS_AND_DECORATORS = {data.PastedDigit, data.ReadImage, augment.by_kind, augment.photometric, figures.DrawnBox}


def name_of(value: object) -> str | None:
    return f"{value.__module__}.{value.__qualname__}" if callable(value) else value if isinstance(value, str) else ""


@pytest.mark.parametrize(("function", "arguments", "named"), WRONG, ids=name_of)
def test_the_argument_is_named_in_one_line(function: Callable[..., Any], arguments: Any, named: str) -> None:
    with pytest.raises(UsageError) as caught:
        function(*arguments) if isinstance(arguments, tuple) else function(**arguments)
    line = str(caught.value)
    assert f": {named}=" in line or f": {named}[" in line
    assert " must be " in line
    assert "\n" not in line


def test_every_public_function_has_an_example() -> None:
    functions = {member for member in PUBLIC if inspect.isfunction(member) or inspect.isclass(member)}
    assert functions - RESULTS_AND_DECORATORS <= {function for function, _, _ in WRONG}


Number = TypeVar("Number", int, str)


@pytest.mark.parametrize(
    ("annotation", "right", "wrong"),
    [
        (int, [3, np.int32(3)], [True, 3.0, "3", None]),
        (float, [3, 0.5, np.float32(0.5)], [False, "0.5", None, 1j]),
        (bool, [True, np.True_], [1, None, "true"]),
        (str, ["a"], [b"a", 3]),
        (str | os.PathLike[str], ["a", Path("a")], [b"a", 3]),
        (int | None, [3, None], ["3"]),
        (Literal["fit", True], ["fit", True], ["fill", 1, False]),
        (tuple[int, ...], [(), (1, 2), [1, 2]], [3, ("1",), "12"]),
        (tuple[str, float], [("a", 1), ["a", 0.5]], [("a",), (1, "a")]),
        (Sequence[str], [("a",), ["a"], [], np.array(["a"])], ["ab", 3, [3], np.ones(2)]),
        (Sequence[Float[np.ndarray, "n"]], [[np.ones(2)], np.ones((3, 2))], [[[1.0]], 3, np.float64(1)]),
        (Iterable[str], [("a",), {"a": 3}, iter("ab")], ["ab", b"ab", 3]),
        (Mapping[str, int], [{}, {"a": 3}], [[("a", 3)], {3: 3}, {"a": "3"}]),
        (Callable[[int], int], [len, lambda x: x], [3, "len"]),
        (Float[np.ndarray, "n"], [np.ones(2), jnp.ones(2)], [[1.0], None, 3]),
        (Float[Array, "n"] | None, [jnp.ones(2), None], [[1.0], "a"]),
        (Key[Array, ""], [KEY], [0]),
        (nnx.Module, [MODEL], [None, dict]),
        (Number, [3, "a"], [3.5]),
        (Any, [3, None], []),
    ],
    ids=lambda value: None if isinstance(value, list) else described(value),
)
def test_what_fits(annotation: Any, right: list[Any], wrong: list[Any]) -> None:
    assert [value for value in right if not fits(value, annotation)] == []
    assert [value for value in wrong if fits(value, annotation)] == []


def test_functions_keep_their_names_and_what_they_do() -> None:
    @typed
    def first(*names: str, start: int = 0, **options: int) -> str:
        """The first name."""
        return names[start]

    assert (first.__name__, first.__doc__, first("a", "b", start=1, more=3)) == ("first", "The first name.", "b")
    for call, line in {
        (lambda: first("a", 3)): "first: names[1]=3 must be str, not int",
        (lambda: first("a", more="3")): "first: more='3' must be int, not str",
    }.items():
        with pytest.raises(UsageError) as caught:
            call()
        assert str(caught.value) == line
    with pytest.raises(TypeError, match="load: missing a required argument"):
        data.load(*["digits"])
