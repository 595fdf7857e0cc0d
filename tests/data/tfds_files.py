"""Writes a TFDS data set as described in TFDS's documentation, without TensorFlow and the code under test."""

import io
import json
from pathlib import Path

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
    folder = data_dir / name / "1.0.0"
    folder.mkdir(parents=True)
    split_infos = []
    for split, (images, labels) in splits.items():
        writer = ArrayRecordWriter(str(folder / f"{name}-{split}.{file_format}-00000-of-00001"), "group_size:1")
        for image, label in zip(images, labels, strict=True):
            png = io.BytesIO()
            Image.fromarray(image.squeeze()).save(png, format="png")
            example = Example()
            example.features.feature["image"].bytes_list.value.append(png.getvalue())
            example.features.feature["label"].int64_list.value.append(label)
            writer.write(example.SerializeToString())
        writer.close()
        split_infos.append({"name": split, "shardLengths": [str(len(labels))], "numBytes": "1"})
        split_infos[-1]["filepathTemplate"] = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
    if shape is None:
        shape = next(iter(splits.values()))[0].shape[1:]
    dimensions = ["-1" if size is None else str(size) for size in shape]
    features = {
        "image": {
            "pythonClassName": FEATURES + "image_feature.Image",
            "image": {"dtype": dtype, "shape": {"dimensions": dimensions}},
        },
        "label": {
            "pythonClassName": FEATURES + "class_label_feature.ClassLabel",
            "classLabel": {"numClasses": str(len(class_names))},
        },
    }
    (folder / "features.json").write_text(
        json.dumps({"pythonClassName": FEATURES + "features_dict.FeaturesDict", "featuresDict": {"features": features}})
    )
    (folder / "label.labels.txt").write_text("\n".join(class_names) + "\n")
    info = {"name": name, "version": "1.0.0", "fileFormat": file_format, "splits": split_infos, "description": "Made."}
    if supervised_keys:
        info["supervisedKeys"] = {"tuple": {"items": [{"featureKey": key} for key in supervised_keys]}}
    (folder / "dataset_info.json").write_text(json.dumps(info))
