"""Writes a TFDS data set as described in TFDS's documentation, without TensorFlow and the code under test."""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter
from PIL import Image
from tensorflow_datasets.proto.tf_example_generated_pb2 import Example

FEATURES = "tensorflow_datasets.core.features."


def write_tfds_set(
    data_dir: Path,
    name: str,
    splits: dict[str, tuple[np.ndarray, list[int]]],
    *,
    class_names: list[str],
    shape: tuple[int, ...] | None = None,
    dtype: str = "uint8",
    file_format: str = "array_record",
    supervised_keys: tuple[str, ...] = ("image", "label"),
) -> None:
    """Writes ``{split: (images, labels)}`` as version 1.0.0 of a data set; ``shape`` is the declared image shape."""
    if shape is None:
        shape = next(iter(splits.values()))[0].shape[1:]
    examples = {
        split: [{"image": png(image), "label": label} for image, label in zip(images, labels, strict=True)]
        for split, (images, labels) in splits.items()
    }
    features = {"image": image_feature(shape, dtype), "label": label_feature(len(class_names))}
    options = {"supervised_keys": supervised_keys, "file_format": file_format}
    write_tfds_examples(data_dir, name, examples, features, class_names={"label": class_names}, **options)


def write_tfds_examples(
    data_dir: Path,
    name: str,
    splits: Mapping[str, Sequence[Mapping[str, Any]]],
    features: Mapping[str, Any],
    *,
    class_names: Mapping[str, Sequence[str]] | None = None,
    supervised_keys: tuple[str, ...] = (),
    file_format: str = "array_record",
) -> None:
    """Writes ``{split: examples}`` as version 1.0.0 of a data set.

    An example has for each feature what is stored of it: bytes, a number, or a sequence of either.
    """
    folder = data_dir / name / "1.0.0"
    folder.mkdir(parents=True)
    split_infos = []
    for split, examples in splits.items():
        writer = ArrayRecordWriter(str(folder / f"{name}-{split}.{file_format}-00000-of-00001"), "group_size:1")
        for values in examples:
            example = Example()
            for key, value in values.items():
                entries = value if isinstance(value, list) else [value]
                kind = {bytes: "bytes_list", float: "float_list"}.get(type(entries[0]), "int64_list")
                getattr(example.features.feature[key], kind).value.extend(entries)
            writer.write(example.SerializeToString())
        writer.close()
        split_infos.append({"name": split, "shardLengths": [str(len(examples))], "numBytes": "1"})
        split_infos[-1]["filepathTemplate"] = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
    (folder / "features.json").write_text(
        json.dumps({"pythonClassName": FEATURES + "features_dict.FeaturesDict", "featuresDict": {"features": features}})
    )
    for key, names in (class_names or {}).items():
        (folder / f"{key}.labels.txt").write_text("\n".join(names) + "\n")
    info = {"name": name, "version": "1.0.0", "fileFormat": file_format, "splits": split_infos, "description": "Made."}
    if supervised_keys:
        info["supervisedKeys"] = {"tuple": {"items": [{"featureKey": key} for key in supervised_keys]}}
    (folder / "dataset_info.json").write_text(json.dumps(info))


def png(image: np.ndarray) -> bytes:
    """An image of uint8 as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(image.squeeze()).save(buffer, format="png")
    return buffer.getvalue()


def image_feature(shape: Sequence[int | None], dtype: str = "uint8") -> dict[str, Any]:
    """The declaration of an ``Image``."""
    return {"pythonClassName": FEATURES + "image_feature.Image", "image": {"dtype": dtype, "shape": _shape(shape)}}


def label_feature(count: int) -> dict[str, Any]:
    """The declaration of a ``ClassLabel``."""
    return {"pythonClassName": FEATURES + "class_label_feature.ClassLabel", "classLabel": {"numClasses": str(count)}}


def audio_feature(shape: Sequence[int | None], rate: int) -> dict[str, Any]:
    """The declaration of an ``Audio`` of integers."""
    about = {"dtype": "int64", "shape": _shape(shape), "sampleRate": str(rate), "encoding": "none"}
    return {"pythonClassName": FEATURES + "audio_feature.Audio", "audio": about}


def video_feature(shape: Sequence[int | None]) -> dict[str, Any]:
    """The declaration of a ``Video``."""
    about = {"dtype": "uint8", "shape": _shape(shape), "encodingFormat": "png"}
    return {"pythonClassName": FEATURES + "video_feature.Video", "video": about}


def text_feature() -> dict[str, Any]:
    """The declaration of a ``Text``."""
    return {"pythonClassName": FEATURES + "text_feature.Text", "text": {}}


def tensor_feature(shape: Sequence[int | None], dtype: str) -> dict[str, Any]:
    """The declaration of a ``Tensor``."""
    about = {"dtype": dtype, "shape": _shape(shape), "encoding": "none"}
    return {"pythonClassName": FEATURES + "tensor_feature.Tensor", "tensor": about}


def _shape(shape: Sequence[int | None]) -> dict[str, list[str]]:
    return {"dimensions": ["-1" if size is None else str(size) for size in shape]}
