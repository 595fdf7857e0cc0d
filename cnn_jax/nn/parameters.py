"""The names of parameters, as the patterns of a config see them."""

import fnmatch
from collections.abc import Sequence

import jax
from jaxtyping import PyTree


def parameter_names(params: PyTree) -> PyTree:
    """A tree like the parameters, with their names: the path to each, its parts joined by slashes.

    >>> parameter_names({"c1": {"kernel": 0, "bias": 0}})
    {'c1': {'bias': 'c1/bias', 'kernel': 'c1/kernel'}}
    """

    def name(path: tuple, _: object) -> str:
        # An nnx.State has a Variable at the end of each path, of which the array is the value.
        return jax.tree_util.keystr(path, simple=True, separator="/").removesuffix("/value")

    return jax.tree_util.tree_map_with_path(name, params)


def matching(name: str, patterns: Sequence[str]) -> bool:
    """Whether a name, or the group that it is in, matches one of the patterns (of the shell's kind).

    >>> matching("c1/kernel", ["c1/*"]), matching("c1/kernel", ["c1"]), matching("c10/kernel", ["c1"])
    (True, True, False)
    """
    return any(fnmatch.fnmatchcase(name, p) or fnmatch.fnmatchcase(name, f"{p}/*") for p in patterns)
