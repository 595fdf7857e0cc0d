"""Weights by their name on the Hugging Face hub."""

import contextlib
import re
from pathlib import Path

from cnn_jax.errors import UsageError

_NAME = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)(@(?P<revision>[\w.-]+))?")
FILE = "model.safetensors"
_CONFIG = "config.json"


def is_name(text: str) -> bool:
    """Whether a text could be a name on the hub: ``owner/name``, and perhaps ``@revision``.

    >>> is_name("timm/resnet18.tv_in1k"), is_name("timm/resnet18.tv_in1k@main"), is_name("weights.safetensors")
    (True, True, False)
    """
    return _NAME.fullmatch(text) is not None


def fetch(name: str) -> Path:
    """The file of weights of that name, downloaded unless it is in the hub's cache; ``config.json`` is beside it.

    Args:
      name: ``owner/name`` of a repository with a ``model.safetensors``; with ``@revision`` a branch, tag or commit.

    Raises:
      UsageError: huggingface_hub is not installed, there is no network, or no such file.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise UsageError(
            f"weights: {name!r} is no name on the Hugging Face hub; give 'owner/name' or 'owner/name@revision'"
        )
    repository, revision = match["repository"], match["revision"]
    address = f"https://huggingface.co/{repository}/resolve/{revision or 'main'}/{FILE}"
    by_hand = f"or download {address} by hand and give the path of that file"
    try:
        import huggingface_hub
        from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError
    except ImportError as error:
        raise UsageError(
            f"weights: {name!r} is on the Hugging Face hub, for which huggingface_hub is missing: "
            f"pip install 'cnn_jax[hub]'; {by_hand}"
        ) from error
    try:
        path = Path(huggingface_hub.hf_hub_download(repository, FILE, revision=revision))
    except (OSError, EntryNotFoundError, HfHubHTTPError, HFValidationError) as error:
        reason = str(error).partition("\n")[0].rstrip(". ")
        raise UsageError(
            f"weights: cannot fetch {name!r} from the Hugging Face hub ({type(error).__name__}: {reason}); "
            f"check the name and the network, {by_hand}"
        ) from error
    # Not every repository has one, and the weights can do without.
    with contextlib.suppress(OSError, EntryNotFoundError, HfHubHTTPError):
        huggingface_hub.hf_hub_download(repository, _CONFIG, revision=revision)
    return path
