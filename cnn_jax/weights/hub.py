"""Downloads weights from the Hugging Face hub by name."""

import contextlib
import re
from pathlib import Path
from typing import Any

from cnn_jax.errors import UsageError
from cnn_jax.runtime.extras import install_command

_NAME = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)(@(?P<revision>[\w.-]+))?")
FILE = "model.safetensors"
_CONFIG = "config.json"


def is_name(text: str) -> bool:
    """Whether a text has the form of a name on the hub: ``owner/name``, optionally followed by ``@revision``.

    >>> is_name("timm/resnet18.tv_in1k"), is_name("timm/resnet18.tv_in1k@main"), is_name("weights.safetensors")
    (True, True, False)
    """
    return _NAME.fullmatch(text) is not None


def fetch(name: str) -> Path:
    """Downloads the file of weights and ``config.json`` of a repository, unless they are in the hub's cache.

    Args:
      name: The name of a repository with a file ``model.safetensors``: ``owner/name``. A branch, tag or commit can be
        given as ``owner/name@revision``.

    Returns:
      The path of the file of weights; ``config.json``, if the repository has one, is in the same folder.

    Raises:
      UsageError: The name is not valid, huggingface_hub is not installed, there is no connection, or there is no such
        file.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise UsageError(
            f"weights: {name!r} is not a name on the Hugging Face hub; give 'owner/name' or 'owner/name@revision'"
        )
    repository, revision = match["repository"], match["revision"]
    address = f"https://huggingface.co/{repository}/resolve/{revision or 'main'}/{FILE}"
    by_hand = f"or download {address} by hand and give the path of that file"
    try:
        import huggingface_hub
        from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError
    except ImportError as error:
        raise UsageError(
            f"weights: loading {name!r} from the Hugging Face hub needs huggingface_hub: "
            f"{install_command('hub')}; {by_hand}"
        ) from error
    if huggingface_hub.constants.HF_HUB_CACHE.startswith("~"):
        raise UsageError(f"weights: there is no home folder to keep {name!r} in; set HF_HOME to a folder")
    try:
        cached = _only_from_cache(huggingface_hub, repository, revision)
        path = Path(huggingface_hub.hf_hub_download(repository, FILE, revision=revision, local_files_only=cached))
    except (OSError, EntryNotFoundError, HfHubHTTPError, HFValidationError) as error:
        reason = str(error).partition("\n")[0].rstrip(". ")
        raise UsageError(
            f"weights: cannot download {name!r} from the Hugging Face hub ({type(error).__name__}: {reason}); "
            f"check the name and the connection, {by_hand}"
        ) from error
    # Not every repository has a config.json, and the weights can be loaded without it.
    with contextlib.suppress(OSError, EntryNotFoundError, HfHubHTTPError):
        huggingface_hub.hf_hub_download(repository, _CONFIG, revision=revision, local_files_only=cached)
    return path


def _only_from_cache(huggingface_hub: Any, repository: str, revision: str | None) -> bool:
    """Whether the file has to be read from the cache, because the hub does not answer.

    This makes a single request. A download would repeat it for half a minute and print two lines each time.

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
    except Exception as error:  # the exceptions of its HTTP client, which differs between versions of huggingface_hub
        if not isinstance(huggingface_hub.try_to_load_from_cache(repository, FILE, revision=revision), str):
            raise ConnectionError(error) from error
        return True
    return False
