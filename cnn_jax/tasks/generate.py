"""``--mode=predict`` of generation: images that the user asks for, as PNG files and one sheet of all."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from cnn_jax.errors import UsageError
from cnn_jax.report.compilation import compiling
from cnn_jax.runtime.files import check_output_folder
from cnn_jax.runtime.terminal import say
from cnn_jax.tasks.generation import Generation
from cnn_jax.tasks.phrases import MOST, Request
from cnn_jax.tasks.predictions import print_table, write_csv, write_image
from cnn_jax.tasks.saved import load_run
from cnn_jax.tasks.task import brief_cells

WITHOUT_WORDS = 16  # images, if the user does not say how many
_COLUMNS = 10  # of the sheet
_GAP = 2  # pixels between its images


def write(
    config: ConfigDict,
    directory: Path,
    *,
    words: Sequence[str],
    count: int | None = None,
    seed: int = 0,
    output: str | None,
    checkpoint: str,
) -> None:
    """Writes images, ``sheet.png`` with all of them, and ``predictions.csv``, and prints what the classifier sees.

    Args:
      config: Of the run.
      directory: The run's folder.
      words: What to make, such as ``'a sneaker'`` or ``'nine boots'``; of a network without words nothing.
      count: How many images of each that has no number of its own; by default 1, and 16 without words.
      seed: Of the noise. The first images do not depend on how many there are.
      output: The folder to write to; by default ``generated`` in the run's folder.
      checkpoint: ``'latest'`` or ``'best'``.

    Raises:
      UsageError: A word is not known, words are missing or the network has none, the number is out of range, or the
        folder cannot be written.
    """
    folder = Path(output) if output is not None else directory / "generated"
    check_output_folder(folder, what="--output")
    if count is not None and not 1 <= count <= MOST:
        raise UsageError(f"--count={count} must be from 1 to {MOST}")
    network, state = load_run(config, directory, checkpoint=checkpoint)
    task = network.task
    assert isinstance(task, Generation)
    requests = _requests(task, words, count)
    each = [(f"{name}-{n}.png", one) for name, one in requests.items() for n in range(1, (one.number or 1) + 1)]
    tokens = np.stack([one.tokens for _, one in each])
    with compiling() as announce:
        images = network.predict(state, task.inputs(tokens, seed), announce)
    pixels = np.rint(255 * images).astype(np.uint8)
    folder.mkdir(parents=True, exist_ok=True)
    for (name, _), image in zip(each, pixels, strict=True):
        write_image(folder / name, image)
    write_image(folder / "sheet.png", _sheet(pixels))
    rows: list[dict[str, Any]] = [
        {"image": name, **({"asked for": " ".join(one.words)} if one.words else {}), **seen}
        for (name, one), seen in zip(each, task.rows(images), strict=True)
    ]
    print_table(f"{directory}, {checkpoint} checkpoint, seed {seed}", list(map(brief_cells, rows)), path="image")
    write_csv(str(folder / "predictions.csv"), rows)
    say(f"wrote {len(each)} images and sheet.png to {folder}")


def _requests(task: Generation, words: Sequence[str], count: int | None) -> dict[str, Request]:
    """What is asked for, by the beginning of the names of its files."""
    if task.phrases is None:
        if words:
            raise UsageError(f"--words={words[0]!r}: the network makes images without words; leave --words out")
        return {"sample": Request((), np.zeros(0, np.int32), count or WITHOUT_WORDS)}
    if not words:
        known = ", ".join(task.phrases.vocabulary[1:])
        raise UsageError(f"--mode=predict needs --words='a ...', of the words {known}")
    found: dict[str, Request] = {}
    for text in words:
        request = task.phrases.request(text)
        name = re.sub(r"\W+", "-", " ".join(request.words))
        if name in found:
            raise UsageError(f"--words: {' '.join(request.words)!r} is asked for twice; give the number once")
        found[name] = request._replace(number=request.number or count or 1)
    return found


def _sheet(images: np.ndarray) -> np.ndarray:
    """All images in rows, with a line between them."""
    columns = min(_COLUMNS, len(images))
    missing = -len(images) % columns
    padded = np.pad(images, ((0, missing), (0, _GAP), (0, _GAP), (0, 0)), constant_values=255)
    _, height, width, channels = padded.shape
    rows = padded.reshape(-1, columns, height, width, channels).swapaxes(1, 2)
    return rows.reshape(-1, columns * width, channels)[:-_GAP, :-_GAP]
