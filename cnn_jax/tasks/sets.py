"""The data of a run: the sets that its config names, their augmentation, and the description that a run keeps."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from cnn_jax import config as configs
from cnn_jax import data
from cnn_jax import train as training
from cnn_jax.data import augment
from cnn_jax.errors import UsageError
from cnn_jax.runtime.terminal import say
from cnn_jax.tasks.table import task_class
from cnn_jax.tasks.task import Examples, TargetStatistics

ExampleSet = data.Dataset | data.Records

# A series of runs opens and reads each set once.
_open = functools.lru_cache(maxsize=8)(data.open_set)


@functools.lru_cache(maxsize=8)
def _in_memory(found: ExampleSet) -> data.Dataset:
    return found.to_memory()


def open_split(config: ConfigDict, split: str) -> ExampleSet:
    """One split of a config's data."""
    return _open(config.data.name, split, **_options(config))


def find_examples(config: ConfigDict) -> Examples:
    """What is known about the examples of a config; a data set of TFDS need not be prepared for that."""
    name, spec = config.data.name, dict(data.known_spec(config.data.name, config.data.test, **_options(config)))
    found = Examples(name, spec)
    if config.data.classes:
        label = found.field("label")
        names = data.chosen_classes(name, spec[label].class_names, config.data.classes)
        spec[label] = dataclasses.replace(spec[label], class_names=names)
    return found


def _options(config: ConfigDict) -> dict[str, Any]:
    """Where and how the images of a config are read."""
    size, shape = tuple(config.data.size), tuple(config.input_shape)
    if size and (len(size) != max(2, len(shape) - 1) or min(size) < 1):
        raise UsageError(f"data.size={size} must be (height, width), or of volumes (depth, height, width), or ()")
    if not 1 <= len(shape) <= 4 or min(shape) < 1:
        raise UsageError(f"input_shape={shape} must be positive, such as (height, width, channels)")
    return {
        "data_dir": config.data.data_dir or None,
        "image_shape": (*(size or config.input_shape[:-1]), config.input_shape[-1]),
        "framing": config.data.framing,
        "ignore_label": config.get("ignore_label", -1),  # which runs of earlier versions lack, like the next
        **({"normalize": config.data.normalize} if config.data.get("normalize", "none") != "none" else {}),
        **({"invalid_boxes": config.data.invalid_boxes} if "invalid_boxes" in config.data else {}),
        "train": config.data.train,
        "features": tuple(config.data.get("features", ())),
    }


def load_splits(config: ConfigDict, splits: Sequence[str], *, directory: Path | None = None) -> list[ExampleSet]:
    """Some splits of a config's data: in memory, or, where ``config.data.loading`` has it so, left on disk.

    Args:
      config: Of the run.
      splits: Split expressions.
      directory: Of a run, which is continued as it began: the order of its sums depends on where the data are.
    """
    begun = _description(directory) if directory is not None else None
    sets = [open_split(config, split) for split in splits]
    for report in dict.fromkeys(found.report for found in sets if found.report):
        say(report)
    num_bytes = sum(found.num_bytes for found in sets)
    loading = begun["loading"] if begun else data.choose_loading(config.data.loading, num_bytes)
    if loading == "memory":
        loaded = [_in_memory(found) for found in sets]
        return [found.of_classes(config.data.classes) if config.data.classes else found for found in loaded]
    if config.data.classes:
        raise UsageError(f"data.classes={config.data.classes} needs the set in memory; set data.loading='memory'")
    return [data.as_records(found) for found in sets]


def load_sets(config: ConfigDict, directory: Path) -> dict[str, ExampleSet]:
    """The sets that a config names, by their role: train, test, and validation if there is one."""
    roles = ("train", "validation", "test") if config.data.validation else ("train", "test")
    sets = dict(
        zip(roles, load_splits(config, [config.data[role] for role in roles], directory=directory), strict=True)
    )
    part = tuple(config.data.train_part)
    if part:
        if len(part) != 2:
            raise UsageError(f"data.train_part={part} must be (start, stop), or () for all")
        if isinstance(sets["train"], data.Records):
            raise UsageError(
                f"data.train_part={part} needs the set in memory; set data.loading='memory', "
                "or name the part in data.train, such as train[:1000]"
            )
        sets["train"] = sets["train"].part(*part)
    for warning in warnings_about(sets):
        say(f"warning: {warning}")
    return sets


def warnings_about(sets: Mapping[str, ExampleSet]) -> list[str]:
    """What makes the scores of a run mean less than they seem to, a sentence each."""
    warnings, train_set = [], sets["train"]
    for role, found in sets.items():
        shared = data.count_shared(train_set, found) if role != "train" else 0
        if shared:
            warnings.append(
                f"{shared:,} of the {len(found):,} {role} examples ({shared / len(found):.1%}) are also training "
                f"examples (data.{role}={found.split!r}, data.train={train_set.split!r}), so the {role} scores are no "
                "measure for new examples"
            )
    if counts := _class_counts(train_set):
        missing = [name for name, count in zip(train_set.class_names, counts, strict=True) if not count]
        if missing:
            listed = ", ".join(missing[:10]) + (" ..." if len(missing) > 10 else "")
            warnings.append(f"{len(missing)} of {len(counts)} classes have no training example: {listed}")
    return warnings


@functools.lru_cache(maxsize=8)
def known_examples(found: ExampleSet) -> Examples:
    """What a task is told about a set."""
    return Examples(found.name, found.spec, _class_counts(found), _target_statistics(found))


def _class_counts(found: ExampleSet) -> tuple[int, ...]:
    """How many examples, or pixels of masks, have each class; empty without, or where they would have to be read."""
    if isinstance(found, data.Records):
        return ()
    for name, field in found.spec.items():
        if field.kind in ("label", "mask") and not field.count and field.class_names:
            labels = found.fields[name]
            return tuple(np.bincount(labels[labels != field.ignored], minlength=len(field.class_names)).tolist())
    return ()


def _target_statistics(found: ExampleSet) -> dict[str, TargetStatistics]:
    """Mean and standard deviation of each number of the targets and of the first boxes; on disk, of a sample."""
    targets = [name for name, field in found.spec.items() if field.kind == "target" and not field.count]
    boxes = [name for name, field in found.spec.items() if field.kind == "boxes"]
    fields = data.sample(found).fields if targets or boxes else {}
    arrays = {name: fields[name] for name in targets}
    arrays |= {name: fields[name][fields[found.spec[name].count] > 0, 0] for name in boxes}
    statistics = {}
    for name, array in arrays.items():
        if not len(array):
            continue
        values = array.reshape(len(array), -1).astype(np.float64)
        statistics[name] = TargetStatistics(tuple(values.mean(axis=0).tolist()), tuple(values.std(axis=0).tolist()))
    return statistics


def take(found: ExampleSet, indices: Sequence[int] | np.ndarray) -> dict[str, np.ndarray]:
    """Some examples of a set, as a batch has them."""
    return {**found.take(list(indices)), "index": np.asarray(indices, np.int32)}


def examples(config: ConfigDict, found: ExampleSet) -> training.ExampleArrays | data.Stream:
    """A set as the loop takes it: arrays, or a stream of them."""
    if isinstance(found, data.Records):
        return data.Stream(found, workers=config.data.workers)
    return {**found.fields, "index": np.arange(len(found), dtype=np.int32)}


def make_preprocess(config: ConfigDict, train_set: ExampleSet) -> data.Preprocess:
    """How images become the network's input: in the config's range of pixels, or normalised by the training set."""
    shape, resize, pixel_range = tuple(config.input_shape), config.data.resize, tuple(config.data.pixel_range)
    if not pixel_range:
        if task_class(config.experiment).spatial:  # the network is given parts of images
            whole = data.Preprocess.measure(train_set, train_set.image_shape, resize=resize)
            return dataclasses.replace(whole, input_shape=shape)
        return data.Preprocess.measure(train_set, shape, resize=resize)
    if len(pixel_range) != 2:
        raise UsageError(f"data.pixel_range={pixel_range} must be (value of black, value of white), or () for none")
    return data.Preprocess.ranged(shape, *pixel_range, resize=resize)


def make_augmentation(config: ConfigDict, train_set: ExampleSet, preprocess: data.Preprocess) -> augment.Augmentation:
    """The augmentation of a config, with what it needs to know about the training set; checked on shapes at once."""
    wants_colors = any(call.startswith("color_pca") for call in config.data.augment)
    colors = augment.color_covariance(data.sample(train_set).images) if wants_colors else None
    augmentation = augment.Augmentation(
        config.data.augment, num_classes=train_set.num_classes or None, covariance=colors, spec=train_set.spec
    )
    batch = {name: jnp.zeros((1, *(field.shape or ())), field.dtype) for name, field in train_set.spec.items()}
    batch["index"] = jnp.zeros(1, jnp.int32)
    name = train_set.input_name
    augmented = jax.eval_shape(lambda key: augmentation(key, batch, step=0, epoch=0)[name], jax.random.key(0))
    if not task_class(config.experiment).spatial:  # whose network compares the sizes
        jax.eval_shape(preprocess, augmented)
    return augmentation


def describe_data(config: ConfigDict, sets: Mapping[str, ExampleSet], preprocess: data.Preprocess) -> dict[str, Any]:
    """What a trained run must know about its data where they are not there, as JSON values (``data.json``)."""
    train_set = sets["train"]
    return {
        "name": train_set.name,
        "image_shape": list(train_set.image_shape),
        "class_names": list(train_set.class_names),
        "spec": {name: dataclasses.asdict(field) for name, field in train_set.spec.items()},
        "framing": config.data.framing if train_set.report else "fit",
        "normalize": config.data.get("normalize", "none"),
        **_describe_ink(train_set),
        "white": data.folder_white(train_set.name),
        "loading": "stream" if isinstance(train_set, data.Records) else "memory",
        "examples": {role: len(found) for role, found in sets.items()},
        "fingerprints": {role: found.fingerprint() for role, found in sets.items()},
        "preprocess": dataclasses.asdict(preprocess),
        "warnings": warnings_about(sets),
        "targets": {name: found._asdict() for name, found in known_examples(train_set).targets.items()},
    }


def _describe_ink(found: ExampleSet) -> dict[str, Any]:
    # Images whose boxes are wanted are not framed by their ink, which would move it.
    boxed = any(field.kind == "boxes" for field in found.spec.values())
    images = data.sample(found).inputs if found.input_kind == "image" and not boxed else None
    extent = None if images is None else data.measure_ink_extent(images)
    pieces = 1 if images is None or extent is None else data.measure_ink_pieces(images)
    return {"ink_extent": extent, "ink_pieces": pieces}


def check_same_data(directory: Path, sets: Mapping[str, ExampleSet]) -> None:
    """Refuses to continue a run with data other than those that it was started with.

    Raises:
      UsageError: The data have changed; it says how.
    """
    before = _description(directory)
    if before is None:
        return
    changed = []
    old, new = set(before["class_names"]), set(sets["train"].class_names)
    if old != new:
        changed.append(f"classes added: {_listed(new - old)}, gone: {_listed(old - new)}")
    for role, found in sets.items():
        then, now = before["fingerprints"].get(role), found.fingerprint()
        if then != now:
            counts = f"{before['examples'].get(role, 0):,} -> {len(found):,} {found.input_kind}s"
            changed.append(f"{role}: {counts}, fingerprint {then} -> {now}")
    if changed:
        raise UsageError(
            f"--workdir={directory} was begun with other data ({'; '.join(changed)}); bring the old data back, or "
            "train again with another --workdir"
        )


def check_same_words(directory: Path, found: ExampleSet) -> None:
    """Refuses to give a network of texts token numbers that stand for other words than those it was trained on.

    Raises:
      UsageError: The vocabulary of the training set has changed since.
    """
    for name, field in examples_of(read_description(directory)).spec.items():
        if field.kind == "text" and name in found.spec and found.spec[name].class_names != field.class_names:
            raise UsageError(
                f"--workdir={directory} was trained with another vocabulary: the texts of its training set have "
                "changed; bring the old ones back, or train again with another --workdir"
            )


def read_description(directory: Path) -> dict[str, Any]:
    """The ``data.json`` of a run.

    Raises:
      UsageError: There is none.
    """
    description = _description(directory)
    if description is None:
        raise UsageError(
            f"{directory} holds no trained run: there is no {directory / 'data.json'}; train first, or name another "
            "--workdir"
        )
    return description


def examples_of(description: Mapping[str, Any]) -> Examples:
    """What a task is told about a run's examples; runs of earlier versions had images with one label each."""
    if "spec" in description:
        spec = {name: data.Field(**configs.with_tuples(field)) for name, field in description["spec"].items()}
    else:
        spec = {
            "image": data.Field("image", tuple(description["image_shape"])),
            "label": data.Field("label", (), "int32", tuple(description["class_names"])),
        }
    targets = configs.with_tuples(description.get("targets", {}))
    statistics = {name: TargetStatistics(**found) for name, found in targets.items()}
    return Examples(description["name"], spec, targets=statistics)


def preprocess_of(description: Mapping[str, Any]) -> data.Preprocess:
    """The preprocessing of a run."""
    return data.Preprocess(**configs.with_tuples(description["preprocess"]))


def _description(directory: Path) -> dict[str, Any] | None:
    path = directory / "data.json"
    return configs.read_json_object(path) if path.is_file() else None


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names)) or "none"
