"""The Hugging Face hub: without a connection, without its library, and with a small server that imitates it."""

import http.server
import json
import sys
import threading

import numpy as np
import pytest
import safetensors.numpy
from flax import nnx
from huggingface_hub import constants

from cnn_jax import models, weights
from cnn_jax.errors import UsageError
from cnn_jax.weights import hub

NAME = "timm/resnet18.tv_in1k"
ADDRESS = "https://huggingface.co/timm/resnet18.tv_in1k/resolve/main/model.safetensors"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def model():
    return nnx.eval_shape(lambda: models.create("mlp_two_neurons", rngs=nnx.Rngs(0)))


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))


def test_without_the_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UsageError) as error:
        weights.load(model(), NAME)
    assert str(error.value) == (
        f"weights: loading {NAME!r} from the Hugging Face hub needs huggingface_hub: pip install -e "
        f"'.[hub]'; or download {ADDRESS} by hand and give the path of that file"
    )


def test_offline(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UsageError) as error:
        weights.load(model(), NAME)
    assert str(error.value).startswith(
        f"weights: cannot download {NAME!r} from the Hugging Face hub (ConnectionError: "
    )
    assert str(error.value).endswith(f"or download {ADDRESS} by hand and give the path of that file")
    assert "\n" not in str(error.value)


def test_no_network_is_one_line_at_once(monkeypatch, capfd):
    """A closed port refuses connections. Retries would take half a minute and print a line each."""
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    template = "http://127.0.0.1:9" + constants.HUGGINGFACE_CO_URL_TEMPLATE.removeprefix("https://huggingface.co")
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises(UsageError, match=r"ConnectionError: .*by hand"):
        weights.load(model(), NAME)
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def server(monkeypatch):
    """Serves the files of one repository like the hub, and reports missing files like the hub."""
    rng = np.random.default_rng(0)
    shapes = {"classifier.0.weight": (2, 784), "classifier.0.bias": (2,), "classifier.2.weight": (10, 2)}
    tensors = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    tensors["classifier.2.bias"] = np.zeros(10, np.float32)
    files = {
        "model.safetensors": safetensors.numpy.save(tensors),
        "config.json": json.dumps({"pretrained_cfg": {"mean": [0.5], "std": [0.25]}}).encode(),
    }

    class Hub(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            repository, _, rest = self.path.lstrip("/").partition("/resolve/")
            revision, _, file = rest.partition("/")
            content = files.get(file) if (repository, revision) == ("owner/mlp", "main") else None
            self.send_response(404 if content is None else 200)
            self.send_header("X-Error-Code", "RepoNotFound" if content is None else "")
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{file}"')
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            if self.command == "GET" and content:
                self.wfile.write(content)

        do_GET = do_HEAD

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as service:
        threading.Thread(target=service.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{service.server_port}"
        template = address + constants.HUGGINGFACE_CO_URL_TEMPLATE.removeprefix(constants.ENDPOINT)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield tensors
        service.shutdown()


def test_fetches_weights_and_what_is_beside_them(server, monkeypatch):
    loaded = weights.load(model(), "owner/mlp@main")
    np.testing.assert_array_equal(np.asarray(loaded.model.output.kernel[...]).T, server["classifier.2.weight"])
    assert loaded.about.mean == (0.5,)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert weights.load(model(), "owner/mlp").about.std == (0.25,)  # from the cache


def test_no_such_repository(server):
    with pytest.raises(
        UsageError, match=r"cannot download 'owner/none' from the Hugging Face hub \(Repo.*by hand"
    ) as error:
        weights.load(model(), "owner/none")
    assert "\n" not in str(error.value)


def test_no_name():
    with pytest.raises(UsageError, match="give 'owner/name'"):
        hub.fetch("a/b/c")
