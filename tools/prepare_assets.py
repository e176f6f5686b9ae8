#!/usr/bin/env python3
"""Audio, words, noise, tiles and small images of the assets as files that `repquant --data` reads.

    tools/prepare_assets.py OUT [NAME ...]        NAME: cifar10 mnist set5 kwt1 ocr (default: all)

Assets: REPQUANT_ASSETS (default ../shared/assets beside the checkout). Needs numpy, pillow and, for mnist, torch.
Arrays are named as the model's inputs; `target` is what an answer is compared with. Nothing that calibrates is scored:

    cifar10_0.npz, cifar10_1.npz        images (uint8), labels: the two batches, one to calibrate, one to score
    ddpm_eval.npz, dit_eval.npz         MNIST images 0..499 with noise from torch's generator, seed 0, at times spread over
    ddpm_calibration.npz, dit_...       1000 steps (assets/README.md); images 5000..5127, seed 1
    set5/low, set5/high                 Set5 as PNG; sr_calibration.npz: 64 tiles of imagenet/train at half its size
    kwt1_eval.npz, kwt1_calibration.npz clips and three quarters of the spoken digits; every fourth digit
    ocr_eval.npz, ocr_calibration.npz   the 16 words, 48 x 320 (wider ones squeezed); rendered words, seed 0
"""
import gzip
import os
import pathlib
import random
import sys
import wave

import numpy as np
from PIL import Image, ImageDraw, ImageFont

ROOT = pathlib.Path(__file__).resolve().parent.parent
ASSETS = pathlib.Path(os.environ.get("REPQUANT_ASSETS") or ROOT / "../shared/assets")


def cifar10(out):
    for batch in (0, 1):
        rows = np.asarray(Image.open(ASSETS / f"vision/cifar10/batch_{batch}.png").convert("RGB"))
        images = rows.reshape(1000, 32, 32, 3).transpose(0, 3, 1, 2)
        labels = np.loadtxt(ASSETS / f"vision/cifar10/batch_{batch}_labels.txt", dtype=np.int64)
        np.savez(out / f"cifar10_{batch}.npz", images=np.ascontiguousarray(images), labels=labels)


def noised(images, seed):
    """(x_t, t, noise) of images in their own range, times spread evenly over 1000 steps."""
    import torch
    clean, count = torch.from_numpy(images), len(images)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed))
    t = (torch.arange(count) * 1000 + 500) // count
    kept = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0)[t].reshape(-1, 1, 1, 1)
    return (kept.sqrt() * clean + (1 - kept).sqrt() * noise).numpy(), t.numpy(), noise.numpy()


def mnist(out):
    folder = ASSETS / "vision/mnist"
    pixels = np.frombuffer(gzip.open(folder / "t10k-images-idx3-ubyte.gz").read(), np.uint8, offset=16)
    digits = np.frombuffer(gzip.open(folder / "t10k-labels-idx1-ubyte.gz").read(), np.uint8, offset=8).astype(np.int64)
    unit = pixels.reshape(-1, 1, 28, 28).astype(np.float32) / 255
    for name, begin, end, seed in (("eval", 0, 500, 0), ("calibration", 5000, 5128, 1)):
        x, t, noise = noised(unit[begin:end], seed)
        np.savez(out / f"ddpm_{name}.npz", x=x, t=t[:, None], target=noise)
        x, t, noise = noised(unit[begin:end] * 2 - 1, seed)
        np.savez(out / f"dit_{name}.npz", x=x, t=t, y=digits[begin:end], target=noise)


def set5(out):
    folder = ASSETS / "super_resolution/set5"
    for kind, source in (("high", folder / "Set5"), ("low", folder / "Set5_LR/x2")):
        (out / "set5" / kind).mkdir(parents=True, exist_ok=True)
        for path in sorted(source.glob("*.bmp")):
            Image.open(path).convert("RGB").save(out / "set5" / kind / f"{path.stem}.png")
    tiles = []
    for path in sorted((ASSETS / "vision/imagenet/train").iterdir())[::3][:64]:
        image = Image.open(path).convert("RGB")
        half = image.resize((image.width // 2, image.height // 2), Image.BICUBIC)
        left, top = (half.width - 64) // 2, (half.height - 64) // 2
        if left >= 0 and top >= 0:
            tiles.append(np.asarray(half.crop((left, top, left + 64, top + 64))).transpose(2, 0, 1))
    np.savez(out / "sr_calibration.npz", input=np.stack(tiles).astype(np.float32) / 255)


def clip(path):
    """16,000 samples at 16 kHz in [-1, 1]; 8 kHz doubled by linear interpolation; zeros at the end."""
    with wave.open(str(path)) as f:
        rate, x = f.getframerate(), np.frombuffer(f.readframes(f.getnframes()), "<i2").astype(np.float32) / 32768
    if rate == 8000:
        x = np.interp(np.arange(2 * len(x)) / 2, np.arange(len(x)), x).astype(np.float32)
    return np.pad(x[:16000], (0, max(0, 16000 - len(x))))


def kwt1(out):
    clips = sorted((ASSETS / "audio/clips").glob("*.wav"))
    digits = sorted((ASSETS / "audio/digits").glob("*.wav"))
    calibration = digits[::4]
    scored = clips + [path for path in digits if path not in set(calibration)]
    np.savez(out / "kwt1_calibration.npz", audio=np.stack([clip(path) for path in calibration]))
    np.savez(out / "kwt1_eval.npz", audio=np.stack([clip(path) for path in scored]))


def word(image):
    """3 x 48 x 320, BGR, (x / 255 - 0.5) / 0.5, zeros on the right."""
    width = min(320, -(-image.width * 48 // image.height))
    x = (np.asarray(image.convert("RGB").resize((width, 48), Image.BILINEAR), np.float32)[:, :, ::-1] / 255 - 0.5) / 0.5
    return np.pad(x.transpose(2, 0, 1), ((0, 0), (0, 0), (0, 320 - width)))


def rendered(generator):
    """A word of 3 to 12 letters or digits in one colour on another, with noise."""
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
    text = "".join(generator.choice(letters) for _ in range(generator.randint(3, 12)))
    font = ImageFont.load_default(size=generator.randint(24, 56))
    left, top, right, bottom = font.getbbox(text)
    margin = generator.randint(2, 12)
    back, front = ([generator.randint(0, 255) for _ in range(3)] for _ in range(2))
    if sum(abs(a - b) for a, b in zip(back, front)) < 200:
        front = [255 - c if abs(255 - 2 * c) > 80 else (0 if c > 127 else 255) for c in back]
    image = Image.new("RGB", (right - left + 2 * margin, bottom - top + 2 * margin), tuple(back))
    ImageDraw.Draw(image).text((margin - left, margin - top), text, tuple(front), font)
    image = image.rotate(generator.uniform(-4, 4), fillcolor=tuple(back), resample=Image.BILINEAR)
    noise = np.random.default_rng(generator.randint(0, 2**31)).normal(0, generator.uniform(0, 12), np.asarray(image).shape)
    return Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))


def ocr(out):
    rows = [line.split(" ", 1) for line in (ASSETS / "ocr/words_labels.txt").read_text().splitlines()]
    words = np.stack([word(Image.open(ASSETS / "ocr/words" / name)) for name, _ in rows])
    generator = random.Random(0)
    np.savez(out / "ocr_eval.npz", x=words)
    np.savez(out / "ocr_calibration.npz", x=np.stack([word(rendered(generator)) for _ in range(48)]))


PARTS = {"cifar10": cifar10, "mnist": mnist, "set5": set5, "kwt1": kwt1, "ocr": ocr}


def main():
    if len(sys.argv) < 2 or any(name not in PARTS for name in sys.argv[2:]):
        sys.exit(__doc__)
    out = pathlib.Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    for name in sys.argv[2:] or PARTS:
        PARTS[name](out)
        print(f"{name}: {out}")


if __name__ == "__main__":
    main()
