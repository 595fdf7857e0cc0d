"""Weights by their name on the Hugging Face hub."""

import contextlib
import re
from pathlib import Path
from typing import Any

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
        cached = _without_connection(huggingface_hub, repository, revision)
        path = Path(huggingface_hub.hf_hub_download(repository, FILE, revision=revision, local_files_only=cached))
    except (OSError, EntryNotFoundError, HfHubHTTPError, HFValidationError) as error:
        reason = str(error).partition("\n")[0].rstrip(". ")
        raise UsageError(
            f"weights: cannot fetch {name!r} from the Hugging Face hub ({type(error).__name__}: {reason}); "
            f"check the name and the network, {by_hand}"
        ) from error
    # Not every repository has one, and the weights can do without.
    with contextlib.suppress(OSError, EntryNotFoundError, HfHubHTTPError):
        huggingface_hub.hf_hub_download(repository, _CONFIG, revision=revision, local_files_only=cached)
    return path


def _without_connection(huggingface_hub: Any, repository: str, revision: str | None) -> bool:
    """Whether the file must come from the cache, because the hub does not answer: asked once.

    Downloading would ask again for half a minute, with two lines about each time.

    Raises:
      ConnectionError: The hub does not answer, and the file is not in the cache.
      HfHubHTTPError: The hub answers that there is no such file.
    """
    from huggingface_hub.errors import HfHubHTTPError

    address = huggingface_hub.hf_hub_url(repository, FILE, revision=revision)
    try:
        huggingface_hub.get_hf_file_metadata(address)
    except HfHubHTTPError:
        raise
    except Exception as error:  # of its HTTP client, which is another one in each of its versions
        if not isinstance(huggingface_hub.try_to_load_from_cache(repository, FILE, revision=revision), str):
            raise ConnectionError(error) from error
        return True
    return False
