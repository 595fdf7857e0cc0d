"""NIfTI volumes against nibabel: values, class numbers, affines, damaged files, and prediction from file to file."""

import gzip
from pathlib import Path

import nibabel
import numpy as np
import pytest

from cnn_jax import data
from cnn_jax.errors import UsageError
from cnn_jax.experiments import find
from cnn_jax.tasks import default_config
from cnn_jax.tasks import run as runs

GENERATOR = np.random.default_rng(0)
AFFINE = np.array([[0.0, 1.5, 0, -9], [-1, 0, 0, 4], [0, 0, 2.5, 7], [0, 0, 0, 1]])
COLOURS = np.zeros((11, 9, 10), [("R", "u1"), ("G", "u1"), ("B", "u1")])
SHAPES = [(11, 9, 10), (10, 10, 8), (12, 9, 9)]


def write(root: Path, count: int = 12) -> None:
    """Volumes of three sizes with a bright ball, one in two as integers of another scale, and their labels."""
    for folder in ("imagesTr", "labelsTr"):
        (root / folder).mkdir(parents=True)
    for number in range(count):
        shape = SHAPES[number % 3]
        centre = GENERATOR.integers(3, 6, 3)
        ball = sum((axis - c) ** 2 for axis, c in zip(np.indices(shape), centre, strict=True)) < 6
        values = GENERATOR.normal(size=shape) + 4 * ball
        values = (20 * (values + 5)).clip(0, 255).astype(np.uint8) if number % 2 else values.astype(np.float32)
        nibabel.save(nibabel.Nifti1Image(values, AFFINE), root / f"imagesTr/scan_{number}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(ball.astype(np.uint8), AFFINE), root / f"labelsTr/scan_{number}.nii.gz")
    (root / "dataset.json").write_text('{"labels": {"0": "background", "1": "ball"}}')


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("nifti") / "set"
    write(root)
    return root


def test_volumes_and_labels_are_those_of_nibabel(folder: Path) -> None:
    found = data.open_set(f"masks:{folder}", "sorted", image_shape=(12, 10, 10, 1), normalize="each").to_memory()
    assert found.class_names == ("background", "ball")
    for number in range(12):
        values = nibabel.load(folder / f"imagesTr/scan_{number}.nii.gz").get_fdata()
        values = (values - values.mean()) / values.std()
        labels = np.asarray(nibabel.load(folder / f"labelsTr/scan_{number}.nii.gz").dataobj)
        starts = [(size - own) // 2 for size, own in zip((12, 10, 10), values.shape, strict=True)]
        place = tuple(slice(start, start + own) for start, own in zip(starts, values.shape, strict=True))
        np.testing.assert_allclose(found.inputs[number][place][..., 0], values, atol=1e-5)
        mask = found.fields["segmentation"][number]
        np.testing.assert_array_equal(mask[place], labels)
        assert (mask != 255).sum() == labels.size, "what is added is ignored"


def test_scaled_labels_are_rounded(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(np.array([[[0, 1, 3]]], np.uint8), AFFINE)
    image.header.set_slope_inter(1.00000002, 0)
    nibabel.save(image, tmp_path / "a.nii")
    from cnn_jax.data.nifti import read_label_volume

    assert read_label_volume(tmp_path / "a.nii").tolist() == [[[0, 1, 3]]]


def with_a_flipped_bit(content: bytes) -> bytes:
    """A gzip file of the same length whose checksum is not that of its data."""
    data = bytearray(gzip.decompress(content))
    data[-1] ^= 1
    return gzip.compress(bytes(data))[:-8] + content[-8:]


@pytest.mark.parametrize(
    ("damage", "part"),
    [
        (lambda file: nibabel.save(nibabel.Nifti1Image(COLOURS, AFFINE), file), "holds values of type [('R', 'u1')"),
        (
            lambda file: nibabel.save(nibabel.Nifti1Image(1j * COLOURS["R"], AFFINE), file),
            "holds values of type complex",
        ),
        (lambda file: file.write_bytes(file.read_bytes()[:100]), "NIfTI file"),
        (lambda file: file.write_bytes(b"no volume"), "is not a readable NIfTI file"),
        (lambda file: file.write_bytes(with_a_flipped_bit(file.read_bytes())), "is not a complete NIfTI file: CRC"),
        (
            lambda file: nibabel.save(nibabel.Nifti1Image(np.full((11, 9, 10), 7, np.uint8), AFFINE), file),
            "the value 7 at (0, 0, 0) is none of dataset.json",
        ),
        (
            lambda file: nibabel.save(nibabel.Nifti1Image(np.zeros((3, 3, 3), np.uint8), AFFINE), file),
            "has 3x3x3 pixels, but",
        ),
    ],
    ids=["colours", "complex numbers", "cut short", "no volume", "a flipped bit", "an unknown label", "another size"],
)
def test_a_damaged_file_is_named_in_one_line(damage, part: str, tmp_path: Path) -> None:
    write(tmp_path / "set", count=3)
    damage(tmp_path / "set/labelsTr/scan_0.nii.gz")
    with pytest.raises(UsageError) as caught:
        data.open_set(f"masks:{tmp_path / 'set'}", "sorted", image_shape=(12, 10, 10, 1)).to_memory()
    assert part in str(caught.value)
    assert "scan_0.nii.gz" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_volume_is_predicted_from_file_to_file(folder: Path, tmp_path: Path) -> None:
    config = default_config("segmentation")
    config.data.name, config.data.normalize, config.input_shape = f"masks:{folder}", "each", (12, 12, 12, 1)
    config.data.train, config.data.validation, config.data.test = "sorted[:8]", "", "sorted[8:]"
    config.model.name, config.model.width, config.model.options = "u_net_padded", 1 / 8, {"depth": 1}
    config.balanced = True
    config.batch_size, config.duration, config.evaluate_every = 8, "100 steps", "100 steps"
    config.optimizer.name, config.optimizer.learning_rate = "adam", 0.01
    runs.train(config, tmp_path / "run", report=True)
    assert "slice" in (tmp_path / "run/report.html").read_text()
    image = folder / "imagesTr/scan_9.nii.gz"
    find(config).predict(
        config, tmp_path / "run", images=[str(image)], output=str(tmp_path / "out"), checkpoint="latest"
    )
    written = nibabel.load(tmp_path / "out/scan_9.nii.gz")
    labels = np.asarray(nibabel.load(folder / "labelsTr/scan_9.nii.gz").dataobj)
    np.testing.assert_array_equal(written.affine, AFFINE)
    assert written.get_data_dtype() == np.uint8
    predicted = np.asarray(written.dataobj)
    assert predicted.shape == labels.shape
    assert 2 * ((predicted == 1) & (labels == 1)).sum() / ((predicted == 1).sum() + (labels == 1).sum()) > 0.5
