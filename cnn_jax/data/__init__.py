"""Data: sets of named fields, their sources, the order of examples, and what turns them into a network's input."""

from cnn_jax.data.arrays import from_arrays, save_npz
from cnn_jax.data.batches import batch_indices, epoch_order, padded_batches, steps_per_epoch
from cnn_jax.data.borders import BorderWeights, border_weights
from cnn_jax.data.boxes import from_boxes
from cnn_jax.data.canvases import captioned_canvases, combinations_of
from cnn_jax.data.dataset import Dataset, chosen_classes
from cnn_jax.data.domains import unpaired
from cnn_jax.data.fields import KINDS, Field, Spec
from cnn_jax.data.folder import folder_white
from cnn_jax.data.framing import framed
from cnn_jax.data.images import ReadImage, find_images, read_image, read_whole
from cnn_jax.data.ink import measure_ink_extent, measure_ink_pieces
from cnn_jax.data.masks import open_masks
from cnn_jax.data.nifti import NIFTI_SUFFIXES, is_nifti, read_volume, stem_of, write_label_volume
from cnn_jax.data.overlap import count_shared
from cnn_jax.data.pasted import PastedDigit, paste_digit
from cnn_jax.data.preprocess import Preprocess
from cnn_jax.data.records import Records, as_records, sample, with_field
from cnn_jax.data.sounds import read_sound
from cnn_jax.data.sources import SOURCES, known_spec, load, open_set
from cnn_jax.data.stream import Stream, choose_loading

__all__ = [
    "KINDS",
    "NIFTI_SUFFIXES",
    "SOURCES",
    "BorderWeights",
    "Dataset",
    "Field",
    "PastedDigit",
    "Preprocess",
    "ReadImage",
    "Records",
    "Spec",
    "Stream",
    "as_records",
    "batch_indices",
    "border_weights",
    "captioned_canvases",
    "choose_loading",
    "chosen_classes",
    "combinations_of",
    "count_shared",
    "epoch_order",
    "find_images",
    "folder_white",
    "framed",
    "from_arrays",
    "from_boxes",
    "is_nifti",
    "known_spec",
    "load",
    "measure_ink_extent",
    "measure_ink_pieces",
    "open_masks",
    "open_set",
    "padded_batches",
    "paste_digit",
    "read_image",
    "read_sound",
    "read_volume",
    "read_whole",
    "sample",
    "save_npz",
    "stem_of",
    "steps_per_epoch",
    "unpaired",
    "with_field",
    "write_label_volume",
]
