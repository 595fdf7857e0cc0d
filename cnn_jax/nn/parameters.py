"""Names of parameters, and patterns that match them, as in configs."""

import fnmatch
from collections.abc import Sequence

import jax
from jaxtyping import PyTree


def parameter_names(params: PyTree) -> PyTree:
    """Returns a tree like the parameters that contains their names: the path to each, with parts joined by slashes.

    >>> parameter_names({"c1": {"kernel": 0, "bias": 0}})
    {'c1': {'bias': 'c1/bias', 'kernel': 'c1/kernel'}}
    """

    def name(path: tuple, _: object) -> str:
        # In an nnx.State each path ends with a Variable, whose value is the array.
        return jax.tree_util.keystr(path, simple=True, separator="/").removesuffix("/value")

    return jax.tree_util.tree_map_with_path(name, params)


def matching(name: str, patterns: Sequence[str]) -> bool:
    """Whether a name, or a group that contains it, matches one of the shell-style patterns.

    >>> matching("c1/kernel", ["c1/*"]), matching("c1/kernel", ["c1"]), matching("c10/kernel", ["c1"])
    (True, True, False)
    """
    return any(fnmatch.fnmatchcase(name, p) or fnmatch.fnmatchcase(name, f"{p}/*") for p in patterns)
