"""Generation: the Fréchet distance and losses against formulas, phrases, networks, exact resume, and what is made."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image
from scipy.linalg import sqrtm

from cnn_jax import data, geometry, models, train
from cnn_jax.config import read_run_config
from cnn_jax.errors import UsageError
from cnn_jax.models.dcgan import DCGANDiscriminator, doublings
from cnn_jax.tasks import Classification, Examples, Generation, default_config
from cnn_jax.tasks import run as runs
from cnn_jax.tasks.frechet import frechet_distance, frechet_distance_of_normals
from cnn_jax.tasks.generation_report import nearest, spherical
from cnn_jax.tasks.phrases import Phrases
from cnn_jax.tasks.saved import load_run
from tests.tasks.interrupted import train_interrupted


def random_normal(seed, size):
    generator = np.random.default_rng(seed)
    root = generator.normal(size=(size, size))
    return generator.normal(size=size), root @ root.T


def test_the_frechet_distance_of_normals_is_the_closed_form_and_that_of_scipys_root():
    means, deviations = np.array([[1.0, -2.0, 0.5], [0.0, 1.0, 0.5]]), np.array([[1.0, 2.0, 3.0], [2.0, 0.5, 3.0]])
    found = frechet_distance_of_normals(means[0], np.diag(deviations[0] ** 2), means[1], np.diag(deviations[1] ** 2))
    closed = np.square(means[0] - means[1]).sum() + np.square(deviations[0] - deviations[1]).sum()
    assert found == pytest.approx(closed, rel=1e-12)
    (first_mean, first), (second_mean, second) = random_normal(0, 6), random_normal(1, 6)
    trace = np.trace(first + second - 2 * np.real(sqrtm(first @ second)))
    expected = np.square(first_mean - second_mean).sum() + trace
    assert frechet_distance_of_normals(first_mean, first, second_mean, second) == pytest.approx(expected, rel=1e-9)


def test_the_frechet_distance_of_samples_has_their_moments_also_of_fewer_examples_than_features():
    generator = np.random.default_rng(0)
    some, others = generator.normal(size=(50, 3)) @ generator.normal(size=(3, 3)), generator.normal(1, 2, (40, 3))
    moments = [part for features in (some, others) for part in (features.mean(axis=0), np.cov(features.T))]
    assert frechet_distance(some, others) == pytest.approx(frechet_distance_of_normals(*moments), rel=1e-12)
    few = generator.normal(size=(4, 9))
    assert frechet_distance(few, few + 3) == pytest.approx(9 * 3**2, rel=1e-6)
    assert frechet_distance(few[:, :1], 2 * few[:, :1]) == pytest.approx(few[:, 0].mean() ** 2 + few[:, 0].var(ddof=1))
    assert np.isnan(frechet_distance(few, np.full_like(few, np.nan)))


NAMES = ("T-shirt/top", "Ankle boot", "Dress", "9", "aquarium_fish")
PHRASES = Phrases.of_names(NAMES)


def test_phrases_are_the_runs_of_words_of_names_their_alternatives_and_spoken_digits():
    assert PHRASES.of_class == (
        (("t-shirt",), ("top",)),
        (("ankle", "boot"), ("ankle",), ("boot",)),
        (("dress",),),
        (("9",), ("nine",)),
        (("aquarium", "fish"), ("aquarium",), ("fish",)),
    )
    tokens, counts = PHRASES.table()
    assert counts.tolist() == [2, 3, 1, 2, 3]
    words = [[PHRASES.vocabulary[token] for token in tokens[1, place]] for place in range(3)]
    assert words == [["ankle", "boot"], ["ankle", "<padding>"], ["boot", "<padding>"]]


@pytest.mark.parametrize(
    ("text", "words", "number"),
    [
        ("dress", "dress", None),
        ("a dress", "dress", None),
        ("Nine boots", "boot", 9),
        ("12 Ankle boots!", "ankle boot", 12),
        ("two dresses", "dress", 2),
        ("some tops", "top", None),
        ("nine", "nine", None),
        ("nine nines", "nine", 9),
        ("3 9s", "9", 3),
    ],
)
def test_requests_have_a_number_or_an_article_and_words_that_may_be_plural(text, words, number):
    request = PHRASES.request(text)
    assert (" ".join(request.words), request.number) == (words, number)
    assert request.tokens.tolist() == PHRASES.tokens(words.split()).tolist()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a sneeker", "--words='a sneeker': the word 'sneeker' is unknown; known are 9, ankle, aquarium, boot, dress"),
        ("", "--words='': give 1 to 2 words of what is known"),
        ("three ankle boot dress", "give 1 to 2 words"),
        ("0 boots", "asks for 0 images; give a number from 1 to 1000"),
        ("5000 boots", "asks for 5000 images"),
    ],
)
def test_mistakes_in_requests_list_what_is_known(text, message):
    with pytest.raises(UsageError) as caught:
        PHRASES.request(text)
    assert message in str(caught.value)


def test_the_networks_have_the_sizes_of_pytorchs_example_and_of_the_paper():
    discriminator = nnx.eval_shape(lambda: DCGANDiscriminator((64, 64, 3), rngs=nnx.Rngs(0)))
    assert geometry.parameter_count(discriminator) == 2_765_568
    paper = nnx.eval_shape(lambda: models.create("dcgan_generator", width=2.0, kernel_size=5))
    shapes = [row.output_shape for row in geometry.trace(paper, (100,))]
    sizes = [(4, 4, 1024), (8, 8, 512), (16, 16, 256), (32, 32, 128), (64, 64, 3)]
    assert [shape for shape in dict.fromkeys(shapes) if len(shape) == 3] == sizes, "figure 1"
    assert [doublings(size) for size in ((8, 8), (28, 28), (32, 48), (64, 64), (96, 96))] == [1, 2, 3, 4, 4]
    with pytest.raises(UsageError, match="images of 9x8: DCGAN needs even sides of at least 8 pixels"):
        doublings((9, 8))


def task(**changes):
    config = default_config("generation")
    config.update_from_flattened_dict({"condition": "words", "noise_size": 5, **changes})
    spec = {"image": data.Field("image", (8, 8, 1), "uint8"), "label": data.Field("label", (), "int32", NAMES)}
    return Generation(config, Examples("mine", spec))


def test_the_losses_are_cross_entropies_of_real_images_and_generated_ones_with_their_words():
    own, generator = task(), np.random.default_rng(0)
    images = generator.integers(0, 256, (3, 8, 8, 1)).astype(np.uint8)
    outputs = generator.uniform(-1, 1, (3, 8, 8, 1)).astype(np.float32)
    drawn = generator.normal(size=(3, 2 + 5)).astype(np.float32)
    batch = {"image": jnp.asarray(images), "label": jnp.zeros(3, jnp.int32), "drawn": jnp.asarray(drawn)}

    def discriminate(x, words):
        return x.mean(axis=(1, 2)) + words.sum(axis=1, keepdims=True)

    words = drawn[:, :2].sum(axis=1, keepdims=True)
    real, generated = (x.mean(axis=(1, 2)) + words for x in (images / 127.5 - 1, outputs))
    expected = np.log1p(np.exp(-real)).mean() + np.log1p(np.exp(generated)).mean()
    found = own.discriminator_loss(discriminate, jnp.asarray(outputs), batch)
    assert float(found) == pytest.approx(expected, rel=1e-5)
    expected = np.log1p(np.exp(-generated)).mean()  # not that of 1 - D, whose gradient vanishes
    assert float(own.adversarial_loss(discriminate, jnp.asarray(outputs), batch)) == pytest.approx(expected, rel=1e-5)
    assert float(own.loss(jnp.asarray(outputs), batch)) == 0


def test_what_is_drawn_depends_on_the_key_and_the_example_and_words_are_those_of_the_class():
    own, key = task(), jax.random.key(1)
    batch = {"label": jnp.arange(300) % 5, "index": jnp.arange(300)}
    draw = jax.jit(own.draw, static_argnames="train")
    drawn = np.asarray(draw(batch, key, train=True))
    part = {name: values[100:200] for name, values in batch.items()}
    np.testing.assert_array_equal(draw(part, key, train=True), drawn[100:200])
    assert not np.isclose(draw(batch, jax.random.key(2), train=True)[:, 2:], drawn[:, 2:], rtol=0).any()
    assert abs(drawn[:, 2:].mean()) < 0.1
    assert drawn[:, 2:].std() == pytest.approx(1, abs=0.1)
    for number, phrases in enumerate(own.phrases.of_class):
        rows = {tuple(row) for row in drawn[number::5, :2]}
        assert rows == {tuple(own.phrases.tokens(phrase)) for phrase in phrases}, "all of them are trained"
    whole = [own.phrases.tokens(phrases[0]) for phrases in own.phrases.of_class]
    np.testing.assert_array_equal(draw(batch, key, train=False)[:5, :2], whole)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"condition": "word"}, r"condition='word' is unknown; did you mean 'words'"),
        ({"noise_size": 0}, r"noise_size=0 must be at least 1"),
        ({"ensemble": 2}, r"ensemble=2 has no meaning for generation; use 1"),
        ({"data.test_time": "mirror"}, r"data.test_time='mirror' has no meaning for generation"),
        ({"rotated_pairs.weight": 0.1}, r"rotated_pairs.weight=0.1 has no meaning"),
        ({"input_shape": (28, 28, 1)}, r"images of shape \(8, 8, 1\), .* instead of \(28, 28, 1\)"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_keys_without_a_meaning_are_refused(changes, message):
    with pytest.raises(UsageError, match=message):
        task(**changes)


def test_images_without_a_label_have_no_words():
    label = data.Field("label", (), "int32", NAMES, ignored=-1)
    examples = Examples("mine", {"image": data.Field("image", (8, 8, 1), "uint8"), "label": label})
    config = default_config("generation")
    Generation(config, examples)
    config.condition = "words"
    with pytest.raises(UsageError, match=r"'mine' may have images without a label, .* use condition='none'"):
        Generation(config, examples)
    with pytest.raises(UsageError, match=r"'mine' has no labels, whose names are the words"):
        Generation(config, Examples("mine", {"image": examples.spec["image"]}))


@pytest.mark.parametrize(
    ("classifier", "message"),
    [
        ("", "config.classifier='': give a config such as lenet5_digits, or the folder of a trained run"),
        ("lenet6_digits", "config.classifier: config lenet6_digits: there is no file lenet6_digits"),
        ("dcgan_digits", "config.classifier='dcgan_digits' is no classification, but 'generation'"),
    ],
    ids=("empty", "unknown", "no_classification"),
)
def test_the_classifier_is_a_config_or_a_run(classifier, message):
    config = default_config("generation")
    config.classifier = classifier
    with pytest.raises(UsageError) as caught:
        Generation.helpers(config)
    assert message in str(caught.value)


def test_nearest_images_and_arcs_are_those_of_brute_force():
    generator = np.random.default_rng(0)
    images, among = generator.uniform(size=(5, 12)), generator.uniform(size=(7, 12))
    every = np.sqrt(np.square(images[:, None] - among).mean(axis=-1))
    found, distances = nearest(images, among)
    np.testing.assert_array_equal(found, every.argmin(axis=1))
    np.testing.assert_allclose(distances, every.min(axis=1))
    first, last = np.array([3.0, 0.0]), np.array([0.0, 3.0])
    for share in (0.0, 0.25, 1.0):
        angle = share * np.pi / 2
        np.testing.assert_allclose(
            spherical(first, last, share), 3 * np.array([np.cos(angle), np.sin(angle)]), atol=1e-12
        )
    np.testing.assert_allclose(spherical(first, 2 * first, 0.5), 1.5 * first)


class Drawn(Classification):
    """A task whose network is given noise."""

    def draw(self, batch, key, *, train):
        return jnp.zeros((len(batch["index"]), 4))


def test_a_network_that_is_given_noise_predicts_nothing_about_files(tmp_path):
    options = {"images": ["a.png"], "output": None, "checkpoint": "latest"}
    with pytest.raises(UsageError, match="is given what Drawn draws, no files"):
        runs.predict(default_config(f"{__file__}:Drawn"), tmp_path, **options)


CLASSIFIER = """
from cnn_jax.tasks import default_config

def get_config():
    config = default_config()
    config.model.name, config.input_shape, config.epochs = "logistic_regression", (8, 8, 1), 1
    config.data.validation = ""
    return config
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One run to its end with a report, and one that ends at its first evaluation and is continued."""
    folder = tmp_path_factory.mktemp("generation")
    (folder / "classifier.py").write_text(CLASSIFIER)
    config = default_config("generation")
    config.condition, config.noise_size, config.classifier = "words", 4, str(folder / "classifier.py")
    config.model.width = config.discriminator.width = 1 / 16
    config.data.train, config.data.validation, config.data.test = "train[:64]", "", "test[:40]"
    config.batch_size, config.duration, config.evaluate_every = 16, "6 steps", "3 steps"
    config.keep_history, config.ema_decay = 2, 0.9
    config.optimizer.name, config.optimizer.learning_rate = "adam", 0.01
    runs.train(config, folder / "whole")
    train_interrupted(config, folder / "killed")
    return config, folder


def test_a_killed_run_ends_with_the_same_bits_and_both_networks_are_trained(run):
    config, folder = run
    whole, killed = (json.loads((folder / name / "result.json").read_text()) for name in ("whole", "killed"))
    assert whole == killed
    assert (folder / "whole" / "classifier" / "result.json").is_file()
    rows = train.read_records(folder / "whole")
    assert {"loss", "adversarial_loss", "discriminator_loss"} <= {name for row in rows for name in row}
    network, state = load_run(config, folder / "whole")
    first = dict(nnx.to_flat_state(nnx.state(network.create(train.stream_key(jax.random.key(0), "params")), nnx.Param)))
    for path, value in nnx.to_flat_state(state.params):
        assert not np.array_equal(value.get_value(), first[path].get_value()), path


def test_scores_are_those_of_the_classifier_on_one_image_for_each_test_example(run):
    config, folder = run
    network, state = load_run(config, folder / "whole")
    classifier, trained = load_run(read_run_config(folder / "whole" / "classifier"), folder / "whole" / "classifier")
    test_set = data.load("digits", "test[:40]")
    batch = {"index": jnp.arange(40), "label": jnp.asarray(test_set.labels)}
    given = np.asarray(network.drawn(batch)["drawn"])
    images = network.predict(state, given)
    np.testing.assert_allclose(network.predict(state, given[:1]), images[:1], atol=1e-6)
    result = json.loads((folder / "whole" / "result.json").read_text())["scores"]
    classes = classifier.predict(trained, images).argmax(axis=1)
    assert result["test/accuracy"] == pytest.approx((classes == test_set.labels).mean())
    scale = np.asarray(classifier.preprocess.std)
    features = [pixels.reshape(40, -1) / scale for pixels in (images, test_set.images / 255)]
    assert result["test/frechet"] == pytest.approx(frechet_distance(*features), rel=1e-4)


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image)


def test_images_that_are_asked_for_are_written_and_the_first_ones_do_not_depend_on_the_number(run, tmp_path, capsys):
    config, folder = run
    options = {"images": (), "checkpoint": "latest"}
    runs.predict(config, folder / "whole", words=["a 3", "two fours"], output=str(tmp_path / "a"), **options)
    runs.predict(config, folder / "whole", words=["3"], count=12, seed=1, output=str(tmp_path / "b"), **options)
    names = ["3-1.png", "four-1.png", "four-2.png", "predictions.csv", "sheet.png"]
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == names
    assert "asked for" in capsys.readouterr().out
    sheet = pixels(tmp_path / "b" / "sheet.png")
    assert sheet.shape == (2 * 8 + 2, 10 * 8 + 9 * 2)
    np.testing.assert_array_equal(sheet[10:, 10:18], pixels(tmp_path / "b" / "3-12.png"))
    assert (pixels(tmp_path / "a" / "3-1.png") != pixels(tmp_path / "b" / "3-1.png")).any(), "another seed"
    for changes, message in (
        ({"images": ["a.png"], "checkpoint": "latest"}, "--images=a.png: the network in .* makes images"),
        ({"words": ["a cat"], **options}, "the word 'cat' is unknown; known are 0, 1"),
        ({"words": ["3", "a 3"], **options}, "'3' is asked for twice"),
        ({"words": [], **options}, "needs --words"),
        ({"words": ["3"], "count": 0, **options}, "--count=0 must be from 1"),
    ):
        with pytest.raises(UsageError, match=message):
            runs.predict(config, folder / "whole", output=None, **changes)


def test_the_report_shows_samples_during_training_neighbours_and_losses(run):
    _, folder = run
    page = (folder / "whole" / "report.html").read_text()
    for title in ("Samples", "Samples during training", "Between two noises", "Nearest training images"):
        assert f">{title}</h2>" in page, title
    for other in ("Losses of both networks", "Fréchet distance", "What was asked for, and what came"):
        assert other in page, other
