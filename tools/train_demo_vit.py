"""Trains the demo vision transformer on Fashion-MNIST and writes it as ONNX and JSON.

Makes models/demo_vit.onnx, a plain pre-norm vision transformer (dim 64, 4 heads, 6 blocks, patch 4,
305,034 parameters) for 28x28 grey images with a free batch size, and models/demo_vit.json, which
holds the preprocessing, the class names, the accuracy and the training settings.

    train_demo_vit.py --data DIR --out models/demo_vit.onnx

DIR holds the four IDX files of Fashion-MNIST, as in the Debian package dataset-fashion-mnist.
Needs torch, numpy, onnx, onnxscript and onnxruntime. 5,000 training images are held out by seed and
choose the epoch; the test images are only read for the accuracy of the finished file.

The stored model: 91.83 % of the 10,000 test images (onnxruntime, float32), 1.2 MB, 24 epochs in 36
minutes on one thread of a busy two-core machine (55 to 60 s per epoch while it was idle).
The same seed, thread count, torch and processor kind give the same weights.
"""
import argparse
import gzip
import json
import math
import pathlib
import struct
import time

import numpy as np
import onnx
import onnxruntime as ort
import torch
from torch import nn
from torch.nn import functional as F

MEAN, STD = 0.2860, 0.3530
HELD_OUT = 5000
CLASSES = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
           "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]


class Attention(nn.Module):
    """Multi-head self-attention with a fused qkv layer and plain matrix products."""

    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.scale = (dim // heads) ** -0.5
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x):
        batch, tokens, dim = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.heads, dim // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        weights = ((q * self.scale) @ k.transpose(-2, -1)).softmax(dim=-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(batch, tokens, dim))


class Mlp(nn.Module):
    """Two linear layers with an erf GELU between them."""

    def __init__(self, dim, hidden):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, dim, heads, mlp_ratio):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, mlp_ratio * dim)

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class VisionTransformer(nn.Module):
    """Plain vision transformer for 28x28 grey images with a class token."""

    def __init__(self, dim=64, heads=4, depth=6, patch=4, mlp_ratio=4):
        super().__init__()
        self.patch_embed = nn.Conv2d(1, dim, kernel_size=patch, stride=patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, (28 // patch) ** 2 + 1, dim))
        self.blocks = nn.ModuleList(Block(dim, heads, mlp_ratio) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, len(CLASSES))
        nn.init.trunc_normal_(self.pos_embed, std=0.3)  # 0.02 takes epochs longer to learn
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, x):
        x = self.patch_embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


def read_idx(path):
    """Array of unsigned bytes held in a gzip-compressed IDX file."""
    with gzip.open(path) as file:
        content = file.read()
    zero, kind, rank = struct.unpack(">HBB", content[:4])
    if zero != 0 or kind != 8:
        raise ValueError(f"{path.name}: not an IDX file of unsigned bytes")
    shape = struct.unpack(f">{rank}I", content[4:4 + 4 * rank])
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * rank)
    if values.size != math.prod(shape):
        raise ValueError(f"{path.name}: {values.size} bytes of data, {math.prod(shape)} expected")
    return values.reshape(shape)


def load_split(folder, prefix, count):
    """Images [count, 28, 28] as bytes and labels [count] of one split."""
    images = read_idx(folder / f"{prefix}-images-idx3-ubyte.gz")
    labels = read_idx(folder / f"{prefix}-labels-idx1-ubyte.gz")
    if images.shape != (count, 28, 28) or labels.shape != (count,):
        raise ValueError(f"{prefix}: {tuple(images.shape)} images, {tuple(labels.shape)} labels; "
                         f"Fashion-MNIST has ({count}, 28, 28) and ({count},)")
    return torch.from_numpy(images.copy()), torch.from_numpy(labels.astype(np.int64))


def normalise(images):
    """Bytes [N, 28, 28] -> network input [N, 1, 28, 28]."""
    return ((images.float() / 255 - MEAN) / STD).unsqueeze(1)


def augment(images, generator, shift=1):
    """Flips half of a batch of byte images and moves each by up to `shift` pixels either way."""
    count = images.shape[0]
    flip = torch.rand(count, generator=generator) < 0.5
    images = torch.where(flip[:, None, None], images.flip(2), images)
    windows = F.pad(images, (shift,) * 4).unfold(1, 28, 1).unfold(2, 28, 1)
    down, right = torch.randint(2 * shift + 1, (2, count), generator=generator)
    return windows[torch.arange(count), down, right]


def optimiser(model, args):
    """AdamW; weight decay acts on matrices and the patch kernel only."""
    decayed, rest = [], []
    for name, parameter in model.named_parameters():
        matrix = parameter.ndim > 1 and name not in ("cls_token", "pos_embed")
        (decayed if matrix else rest).append(parameter)
    groups = [{"params": decayed, "weight_decay": args.weight_decay},
              {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=args.lr)


def rate(step, steps, warm_up):
    """Factor on the learning rate: linear warm-up, then a cosine down to zero."""
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))


@torch.no_grad()
def accuracy(model, images, labels, batch=500):
    """Share of correctly classified images, in float32."""
    model.eval()
    correct = sum((model(normalise(x)).argmax(1) == y).sum().item()
                  for x, y in zip(images.split(batch), labels.split(batch)))
    return correct / len(labels)


def train_epoch(model, optimizer, schedule, images, labels, generator, args):
    """One pass over the training images; returns the mean loss."""
    model.train()
    total, batches = 0.0, len(images) // args.batch
    order = torch.randperm(len(images), generator=generator)
    for index in order[:batches * args.batch].split(args.batch):
        inputs = normalise(augment(images[index], generator))
        with torch.autocast("cpu", torch.bfloat16, enabled=not args.float32):
            logits = model(inputs)
        loss = F.cross_entropy(logits.float(), labels[index], label_smoothing=args.smoothing)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        total += loss.item()
    return total / batches


def train(model, images, labels, args):
    """Trains, leaves the weights of the best held-out epoch in `model`; returns its facts."""
    generator = torch.Generator().manual_seed(args.seed)
    order = torch.randperm(len(images), generator=generator)
    held, kept = order[:HELD_OUT], order[HELD_OUT:]
    held, kept = (images[held], labels[held]), (images[kept], labels[kept])
    optimizer = optimiser(model, args)
    per_epoch = len(kept[0]) // args.batch
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: rate(step, args.epochs * per_epoch, args.warm_up * per_epoch))
    best, state, start = {"held_out_accuracy": -1.0}, None, time.monotonic()
    for epoch in range(1, args.epochs + 1):
        loss = train_epoch(model, optimizer, schedule, *kept, generator, args)
        score = accuracy(model, *held)
        if score >= best["held_out_accuracy"]:
            best = {"held_out_accuracy": score, "chosen_epoch": epoch}
            state = {k: v.clone() for k, v in model.state_dict().items()}
        seconds = time.monotonic() - start
        print(f"epoch {epoch}/{args.epochs}: loss {loss:.4f}, held out {100 * score:.2f} %, "
              f"{seconds / epoch:.1f} s/epoch", flush=True)
    model.load_state_dict(state)
    return best | {"seconds": round(seconds, 1),
                   "seconds_per_epoch": round(seconds / args.epochs, 1)}


def clear_notes(holder):
    """Drops doc strings and metadata, which would name files of the exporting machine."""
    holder.ClearField("doc_string")
    if hasattr(holder, "metadata_props"):
        del holder.metadata_props[:]


def export(model, path):
    """Writes `model` as one ONNX file with a free batch size and without notes; checks it."""
    model.eval()
    torch.onnx.export(model, (torch.zeros(2, 1, 28, 28),), str(path), dynamo=True,
                      external_data=False, opset_version=20, input_names=["input"],
                      output_names=["logits"], verbose=False,
                      dynamic_shapes=({0: torch.export.Dim("batch")},))
    proto = onnx.load(str(path))
    graph = proto.graph
    clear_notes(proto)
    for holder in [graph, *graph.node, *graph.initializer, *graph.input, *graph.output,
                   *graph.value_info]:
        clear_notes(holder)
    for attribute in (a for node in graph.node for a in node.attribute):
        attribute.ClearField("doc_string")
    if proto.functions:
        raise ValueError("the exporter left functions in the file")
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, str(path))


def onnx_accuracy(model, path, images, labels, threads, batch=500):
    """Accuracy of the ONNX file with onnxruntime, and its largest difference from torch."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    correct, difference = 0, 0.0
    for pixels, expected in zip(images.split(batch), labels.split(batch)):
        inputs = normalise(pixels)
        logits = torch.from_numpy(session.run(["logits"], {"input": inputs.numpy()})[0])
        correct += (logits.argmax(1) == expected).sum().item()
        with torch.no_grad():
            difference = max(difference, (logits - model(inputs)).abs().max().item())
    return correct / len(labels), difference


def describe(args, parameters, facts):
    """Contents of the JSON file."""
    return {
        "task": "image classification, Fashion-MNIST",
        "architecture": {
            "kind": "pre-norm vision transformer", "image": 28, "patch": 4, "tokens": 50,
            "dim": args.dim, "heads": args.heads, "blocks": args.depth, "mlp_ratio": 4,
            "activation": "gelu (erf)", "layer_norm_epsilon": 1e-6, "parameters": parameters},
        "input": {"name": "input", "shape": ["batch", 1, 28, 28], "layout": "NCHW",
                  "color": "grey", "scale": "x / 255", "mean": [MEAN], "std": [STD]},
        "output": {"name": "logits", "shape": ["batch", len(CLASSES)]},
        "classes": CLASSES,
        "test_accuracy": facts.pop("test_accuracy"), "test_images": 10000,
        "training": {
            "images": 60000 - HELD_OUT, "held_out_images": HELD_OUT, "seed": args.seed,
            "epochs": args.epochs, "batch": args.batch, "optimizer": "AdamW",
            "learning_rate": args.lr, "weight_decay": args.weight_decay,
            "schedule": f"linear warm-up of {args.warm_up} epoch(s), cosine to zero",
            "label_smoothing": args.smoothing, "gradient_clip": 1.0,
            "augmentation": "horizontal flip, shift by up to 1 pixel",
            "arithmetic": "float32" if args.float32 else "bfloat16 autocast, float32 weights",
            "threads": args.threads, **facts}}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, required=True, metavar="DIR",
                        help="folder with the four *-ubyte.gz files of Fashion-MNIST")
    parser.add_argument("--out", type=pathlib.Path, required=True, metavar="FILE",
                        help="ONNX file to write; the description goes beside it as .json")
    parser.add_argument("--epochs", type=int, default=24)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--weight-decay", type=float, default=0.05)
    parser.add_argument("--warm-up", type=int, default=1, metavar="EPOCHS")
    parser.add_argument("--smoothing", type=float, default=0.05)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--depth", type=int, default=6)
    parser.add_argument("--float32", action="store_true",
                        help="train in float32 instead of bfloat16 autocast")
    args = parser.parse_args()
    if args.epochs < 1 or args.threads < 1 or args.batch < 1 or args.dim % args.heads:
        parser.error("epochs, threads and batch must be positive, dim a multiple of heads")
    return args


def main():
    args = arguments()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    torch.use_deterministic_algorithms(True)
    training = load_split(args.data, "train", 60000)
    test = load_split(args.data, "t10k", 10000)
    model = VisionTransformer(args.dim, args.heads, args.depth)
    parameters = sum(p.numel() for p in model.parameters())
    facts = train(model, *training, args)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    export(model, args.out)
    score, difference = onnx_accuracy(model, args.out, *test, args.threads)
    facts["test_accuracy"] = score
    text = json.dumps(describe(args, parameters, facts), indent=2)
    args.out.with_suffix(".json").write_text(text + "\n")
    print(f"{args.out.name}: {parameters} parameters, {args.out.stat().st_size} bytes, "
          f"test accuracy {100 * score:.2f} % (onnxruntime), "
          f"largest difference from torch {difference:.2g}")


if __name__ == "__main__":
    main()
