"""The figures of a report: learning curves, confusion matrix, filters, feature maps, predicted values and others.

Each function takes plain data and returns a :class:`matplotlib.figure.Figure` that is not registered with pyplot. Save
it with ``figure.savefig("curves.png", dpi=200)``, add it to a page (:mod:`cnn_jax.report.page`), or return it in a
notebook.
"""

from cnn_jax.report.figures.attribution import attributions, gallery, strongest_crops
from cnn_jax.report.figures.boxes import (
    BOX_LEGEND,
    PREDICTED,
    TRUTH,
    DrawnBox,
    box_colours,
    images_with_boxes,
    overlay_of_boxes,
    tinted,
)
from cnn_jax.report.figures.captions import captioned_image, words_with_attention
from cnn_jax.report.figures.comparison import errors, heat_map, panels_of_lines, spreads
from cnn_jax.report.figures.network import network
from cnn_jax.report.figures.pictures import feature_maps, filters, grid_of_images, mistakes, rows_of_images
from cnn_jax.report.figures.prediction import predicted_images
from cnn_jax.report.figures.scores import (
    OPTIMISATION,
    code_map,
    confusion_matrix,
    learning_curves,
    optimisation,
    precision_recall,
    predicted_values,
    reliability,
)
from cnn_jax.report.figures.segmentation import overlay, segmentations
from cnn_jax.report.figures.signals import signals, views

__all__ = [
    "BOX_LEGEND",
    "OPTIMISATION",
    "PREDICTED",
    "TRUTH",
    "DrawnBox",
    "attributions",
    "box_colours",
    "captioned_image",
    "code_map",
    "confusion_matrix",
    "errors",
    "feature_maps",
    "filters",
    "gallery",
    "grid_of_images",
    "heat_map",
    "images_with_boxes",
    "learning_curves",
    "mistakes",
    "network",
    "optimisation",
    "overlay",
    "overlay_of_boxes",
    "panels_of_lines",
    "precision_recall",
    "predicted_images",
    "predicted_values",
    "reliability",
    "rows_of_images",
    "segmentations",
    "signals",
    "spreads",
    "strongest_crops",
    "tinted",
    "views",
    "words_with_attention",
]
