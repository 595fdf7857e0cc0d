"""A run that trains quickly: two small networks on a few examples of a config's data."""

from ml_collections import ConfigDict

from cnn_jax.config import load_config


def small_ensemble(name: str) -> ConfigDict:
    settings = load_config(f"{name}:smoke")
    settings.model.name, settings.model.options = "mlp", {"hidden_sizes": (8,)}
    settings.data.train, settings.data.validation, settings.data.test = "train[:160]", "", "test[:100]"
    settings.ensemble, settings.batch_size = 2, 16
    return settings
