"""Every encoder gives unit vectors, the same as with its model's own preprocessing."""

from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from catalogue import draw as draw_photo
from command import fails
from make_tiny_clip import COLOURS, SHAPES, draw
from PIL import Image
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
from transformers.models.convnext.image_processing_pil_convnext import ConvNextImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

import lookalike
from lookalike.encode.decode import decode
from lookalike.encode.encoder import Encoder, TextEncoder, prepare_function, preprocessing_of
from lookalike.encode.preprocess import Preprocessing
from lookalike.encode.registry import REGISTRY, RegisteredEncoder, has_weights, load_encoder
from lookalike.ingest.sample import photo, products
from lookalike.schema.errors import EncoderUnavailable

# Its strict types accept no dict of options.
HUGGING: Any = transformers
TINY_CLIP = Path(__file__).parents[1] / "tiny_clip"
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
STAGES = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}
SIZES = [(1, 1), (640, 480), (333, 777), (224, 224), (225, 224), (50, 60), (2_000, 31), (17, 1_500)]


def tiny(kind: str) -> tuple[Any, Any]:
    """A model of the family, with random weights, and the processor that its checkpoints come with."""
    t = HUGGING
    torch.manual_seed(0)
    if kind == "resnet":
        config = t.ResNetConfig(embedding_size=8, **STAGES)
        return t.ResNetModel(config), ConvNextImageProcessorPil(crop_pct=0.875, size={"shortest_edge": 224}, resample=3)
    if kind == "convnext":
        return t.ConvNextModel(t.ConvNextConfig(**STAGES)), ConvNextImageProcessorPil(size={"shortest_edge": 384})
    if kind == "regnet":
        config = t.RegNetConfig(embedding_size=8, groups_width=8, **STAGES)
        return t.RegNetModel(config), ConvNextImageProcessorPil(crop_pct=0.875, size={"shortest_edge": 224})
    if kind == "swin":
        config = t.SwinConfig(embed_dim=12, depths=[1, 1, 1, 1], num_heads=[1, 2, 2, 2])
        return t.SwinModel(config), ViTImageProcessorPil()
    if kind == "vit":
        return t.ViTModel(t.ViTConfig(**SMALL)), ViTImageProcessorPil()
    if kind == "dinov2":
        size, crop = {"shortest_edge": 256}, {"height": 224, "width": 224}
        return t.Dinov2Model(t.Dinov2Config(**SMALL)), BitImageProcessorPil(size=size, crop_size=crop)
    vision, text = {**SMALL, "image_size": 224, "patch_size": 32}, {**SMALL, "vocab_size": 50}
    return t.SiglipModel(t.SiglipConfig(text_config=text, vision_config=vision)), SiglipImageProcessorPil()


def own_vector(model: Any, processor: Any, image: Image.Image, kind: str) -> np.ndarray:
    """What the model gives with its own processor, pooled as its family does."""
    pixels = processor(images=image, return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        if kind in ("siglip", "clip"):
            return np.asarray(model.get_image_features(pixel_values=pixels).pooler_output[0])
        output = model(pixel_values=pixels)
        if kind in ("vit", "dinov2"):
            return np.asarray(output.last_hidden_state[0, 0])
        return np.asarray(output.pooler_output.flatten())


def encode(encoder: Encoder, *images: Image.Image) -> np.ndarray:
    return encoder.encode_images(np.stack([encoder.prepare(image) for image in images]))


def some_images() -> list[Image.Image]:
    """A generated product photo in many shapes, and as grey and palette images."""
    product = photo(products()[3], 0)
    return [product.resize(size) for size in SIZES] + [product.convert(mode).convert("RGB") for mode in ("L", "P")]


@pytest.mark.parametrize("kind", ["resnet", "convnext", "regnet", "swin", "vit", "dinov2", "siglip", "clip"])
def test_our_preprocessing_gives_the_same_vectors_as_the_models_own(kind: str, tmp_path: Path) -> None:
    folder = TINY_CLIP if kind == "clip" else tmp_path
    if kind != "clip":
        for part in tiny(kind):
            part.save_pretrained(folder)
    encoder = load_encoder(str(folder))
    model, processor = (
        HUGGING.AutoModel.from_pretrained(folder).eval(),
        HUGGING.AutoImageProcessor.from_pretrained(folder, backend="pil"),
    )

    assert "x" in encoder.fingerprint.preprocessing, "our own preprocessing was not used"
    for image in some_images():
        ours, theirs = encode(encoder, image)[0], own_vector(model, processor, image, kind)
        assert ours.shape == theirs.shape == (encoder.dim,)
        assert ours @ theirs / np.linalg.norm(theirs) >= 0.999, image.size
        pixels = processor(images=image, return_tensors="np")["pixel_values"][0]
        scale = (encoder.prepare(image) / 255 - processor.image_mean) / processor.image_std
        assert np.abs(pixels - scale.transpose(2, 0, 1)).max() < 0.1


def test_an_unusual_processor_is_used_itself(tmp_path: Path) -> None:
    model, _ = tiny("vit")
    model.save_pretrained(tmp_path)
    ViTImageProcessorPil(do_rescale=False).save_pretrained(tmp_path)

    encoder = load_encoder(str(tmp_path))

    assert encoder.fingerprint.preprocessing == "ViTImageProcessorPil"
    image = some_images()[1]
    theirs = own_vector(
        HUGGING.AutoModel.from_pretrained(tmp_path).eval(), ViTImageProcessorPil(do_rescale=False), image, "vit"
    )
    assert encode(encoder, image)[0] @ theirs / np.linalg.norm(theirs) >= 0.999


@pytest.mark.parametrize("name", ["efficientnet-lite0", "pixels", str(TINY_CLIP)])
def test_vectors_have_unit_length_and_do_not_depend_on_their_batch(name: str) -> None:
    encoder = load_encoder(name)
    images = some_images()

    together, alone = encode(encoder, *images), np.concatenate([encode(encoder, image) for image in images])

    assert together.dtype == np.float32
    assert together.shape == (len(images), encoder.dim) == (len(images), encoder.fingerprint.dim)
    assert np.linalg.norm(together, axis=1) == pytest.approx(1, abs=1e-5)
    assert np.einsum("nd,nd->n", together, alone) == pytest.approx(1, abs=1e-4)


def test_the_default_encoder_is_the_same_on_every_machine(encoder: Encoder) -> None:
    vector = encode(encoder, photo(products()[0], 0))[0]

    assert encoder.fingerprint.weights == "70dfe7054b234985"
    strongest = {int(index): float(vector[index]) for index in np.argsort(-vector)[:6]}
    assert strongest == pytest.approx(
        {707: 0.1876, 155: 0.1733, 654: 0.1618, 455: 0.1249, 352: 0.1223, 115: 0.1191}, abs=2e-3
    )


def test_a_text_finds_images_of_what_it_names() -> None:
    clip = load_encoder(str(TINY_CLIP))
    assert isinstance(clip, TextEncoder)
    chance = Random(99)
    kinds = [(colour, shape) for colour in COLOURS for shape in SHAPES]
    images = encode(clip, *(draw(colour, shape, chance) for colour, shape in kinds for _ in range(3)))

    texts = clip.encode_texts([f"a {colour} {shape}" for colour, shape in kinds])

    nearest = (texts @ images.T).argmax(axis=1) // 3
    assert (nearest == np.arange(len(kinds))).mean() >= 0.9


def test_what_prepares_images_is_separate_from_the_model(encoder: Encoder) -> None:
    assert prepare_function(encoder) is preprocessing_of(encoder)
    assert isinstance(preprocessing_of(encoder), Preprocessing)
    pixels = load_encoder("pixels")
    assert preprocessing_of(pixels) is None
    image = photo(products()[0], 0)
    assert np.array_equal(prepare_function(pixels)(image), pixels.prepare(image))


@pytest.mark.parametrize("registered", REGISTRY, ids=lambda registered: registered.name)
def test_every_registered_encoder_can_be_loaded_or_downloaded(registered: RegisteredEncoder) -> None:
    if registered.checkpoint is not None:
        assert registered.load is None
        return
    assert has_weights(registered.name)
    encoder = load_encoder(registered.name)
    assert (encoder.fingerprint.encoder, encoder.dim) == (registered.name, registered.dim)
    assert isinstance(encoder, TextEncoder) == registered.has_text


def test_encoders_without_a_text_tower_are_no_text_encoders(encoder: Encoder) -> None:
    assert not isinstance(encoder, TextEncoder)
    assert not isinstance(load_encoder("pixels"), TextEncoder)


@pytest.mark.parametrize("name", ["clip", "resnet50", "nobody/nothing"])
def test_without_weights_the_message_says_what_to_do(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.hf_api.ENDPOINT", "http://127.0.0.1:9", raising=False)
    with pytest.raises(EncoderUnavailable, match=f"{name}.*(--encoder efficientnet-lite0|lookalike encoders)"):
        load_encoder(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("clipp", r"there is no encoder 'clipp'; did you mean 'clip'\? .*efficientnet-lite0, clip, resnet50, pixels"),
        ("CLIP", "did you mean 'clip'"),
        ("resnet", "did you mean 'resnet50'"),
        ("efficientnet", "did you mean 'efficientnet-lite0'"),
        ("clip-vit-base-patch32", "did you mean 'openai/clip-vit-base-patch32'"),
        ("zebra", r"there is no encoder 'zebra'\. `lookalike encoders` lists"),
        ("", r"there is no encoder ''\. "),
        ("./clipp", r"'\./clipp' is not a directory\. "),
        ("models/of/mine", "'models/of/mine' is not a directory"),
    ],
)
def test_a_mistyped_name_is_an_error_that_names_the_nearest_and_asks_no_hub(
    name: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Whatever went to the hub would meet a port where nothing listens, and say so.
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(EncoderUnavailable, match=message):
        load_encoder(name)


def test_every_command_and_connect_refuse_a_mistyped_encoder_before_anything_is_opened(tmp_path: Path) -> None:
    draw_photo(tmp_path / "photos" / "p" / "1.png", 1)
    expected = "there is no encoder 'clipp'; did you mean 'clip'?"
    for command in (
        ("ingest", "photos"),
        ("ingest", "photos", "--dry-run"),
        ("search", "--product", "p"),
        ("reindex",),
        ("serve",),
    ):
        assert expected in fails(1, *command, "--encoder", "clipp", cwd=tmp_path), command
        if command[0] != "reindex":
            assert expected in fails(1, *command, cwd=tmp_path, LOOKALIKE_ENCODER="clipp"), command
    with pytest.raises(EncoderUnavailable, match="did you mean 'clip'"):
        lookalike.connect(tmp_path / "shop.db", encoder="clipp")
    with lookalike.connect(tmp_path / "shop.db", encoder="pixels") as shop:
        shop.ingest(tmp_path / "photos")
        with pytest.raises(EncoderUnavailable, match="did you mean 'clip'"):
            shop.reindex("clipp")
    assert not (tmp_path / "lookalike.db").exists()


def test_a_directory_without_a_checkpoint_is_named_in_the_message(tmp_path: Path) -> None:
    with pytest.raises(EncoderUnavailable, match=str(tmp_path)):
        load_encoder(str(tmp_path))


@pytest.mark.parametrize("device", ["cuda:99", "abacus"])
def test_a_missing_device_is_named_in_the_message(device: str) -> None:
    with pytest.raises(EncoderUnavailable, match=f"{device!r} cannot be used here.*use --device auto"):
        load_encoder(device=device)


def test_a_copy_of_a_checkpoint_is_the_same_encoder(tmp_path: Path) -> None:
    for file in TINY_CLIP.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    original, copy = load_encoder(str(TINY_CLIP)), load_encoder(str(tmp_path))
    assert original.fingerprint.list_differences(copy.fingerprint) == []
    assert original.fingerprint.list_differences(load_encoder("pixels").fingerprint)


def test_half_precision_hardly_changes_the_vector() -> None:
    image = decode(_jpeg())
    full, half = encode(load_encoder(), image)[0], encode(load_encoder(dtype="bfloat16"), image)[0]
    assert full @ half >= 0.99


def _jpeg() -> bytes:
    import io

    buffer = io.BytesIO()
    photo(products()[9], 0).save(buffer, "JPEG")
    return buffer.getvalue()
