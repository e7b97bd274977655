"""Train the CLIP in tests/tiny_clip on coloured shapes with captions: half a minute on a CPU.

It is as small as a CLIP can be and still put words where images of them are:

    python tests/make_tiny_clip.py
"""

from pathlib import Path
from random import Random

import torch
from PIL import Image, ImageDraw
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, PreTrainedTokenizerFast

HERE = Path(__file__).parent / "tiny_clip"
SIDE = 32
STEPS = 1_500
COLOURS = {"red": (210, 40, 40), "green": (40, 160, 60), "blue": (50, 80, 210), "yellow": (235, 205, 50)}
SHAPES = ("circle", "square", "triangle", "cross")


def draw(colour: str, shape: str, chance: Random) -> Image.Image:
    """Draw one coloured shape somewhere on a light background: RGB, 64×64."""
    side = 64
    image = Image.new("RGB", (side, side), tuple(chance.randint(200, 255) for _ in "rgb"))
    pen = ImageDraw.Draw(image)
    size = chance.randint(26, 44)
    left, top = (chance.randint(4, side - size - 4) for _ in "xy")
    right, bottom, fill = left + size, top + size, COLOURS[colour]
    if shape == "circle":
        pen.ellipse((left, top, right, bottom), fill=fill)
    elif shape == "square":
        pen.rectangle((left, top, right, bottom), fill=fill)
    elif shape == "triangle":
        pen.polygon([(left, bottom), (right, bottom), ((left + right) // 2, top)], fill=fill)
    else:
        third = size // 3
        pen.rectangle((left + third, top, right - third, bottom), fill=fill)
        pen.rectangle((left, top + third, right, bottom - third), fill=fill)
    return image


def tokenizer() -> PreTrainedTokenizerFast:
    """A word is a token."""
    words = ["<pad>", "<start>", "<unknown>", "<end>", "a", "photo", "of", *COLOURS, *SHAPES]
    table = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unknown>"))
    table.pre_tokenizer = pre_tokenizers.Whitespace()
    table.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", 1), ("<end>", 3)]
    )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=table, pad_token="<pad>", bos_token="<start>", eos_token="<end>", unk_token="<unknown>"
    )


def model() -> CLIPModel:
    """A CLIP with a quarter of a million parameters."""
    tower = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 3}
    text = {**tower, **ids, "vocab_size": 15, "max_position_embeddings": 12}
    vision = {**tower, "image_size": SIDE, "patch_size": 8, "num_hidden_layers": 3}
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=32))


def main() -> None:
    """Train and save."""
    torch.manual_seed(0)
    chance = Random(0)
    words, processor = (
        tokenizer(),
        CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}),
    )
    clip = model()
    optimiser = torch.optim.AdamW(clip.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, STEPS)
    kinds = [(colour, shape) for colour in COLOURS for shape in SHAPES]
    tokens = words([f"a photo of a {colour} {shape}" for colour, shape in kinds], return_tensors="pt")
    for step in range(STEPS):
        images = [draw(colour, shape, chance) for colour, shape in kinds]
        pixels = processor(images=images, return_tensors="pt")["pixel_values"]
        loss = clip(
            input_ids=tokens["input_ids"],
            attention_mask=tokens["attention_mask"],
            pixel_values=pixels,
            return_loss=True,
        ).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % 200 == 0:
            print(step, round(loss.item(), 3))  # noqa: T201
    clip.save_pretrained(HERE)
    words.save_pretrained(HERE)
    processor.save_pretrained(HERE)


if __name__ == "__main__":
    main()
