#!/usr/bin/env python3
"""Writes OUT/deit_tiny_legacy.onnx with the export script of the assets: tools/make_legacy_deit.py OUT.

The file comes from PyTorch's TorchScript exporter (opset 13, LayerNorm and GELU decomposed). Needs torch, onnx and timm;
exits with status 77 and one line that begins "assets missing:" when one of them or the assets folder is absent. timm
imports torchvision but DeiT uses nothing of it, so that empty stand-ins serve where it is not installed. A file that is
there already is kept. REPQUANT_ASSETS names the assets folder (default: ../shared/assets beside the repository).
"""
import importlib.abc
import importlib.machinery
import importlib.util
import os
import pathlib
import runpy
import sys
import types


class EmptyType(type):
    """Classes whose every missing attribute is a class of the same kind."""

    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        value = EmptyType(name, (), {})
        setattr(cls, name, value)
        return value


class StandIn(types.ModuleType):
    """A module whose every missing attribute is such a class."""

    __path__ = []

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        value = EmptyType(name, (), {})
        setattr(self, name, value)
        return value


class StandInFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] != "torchvision":
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec):
        return StandIn(spec.name)

    def exec_module(self, module):
        pass


def missing(what):
    print(f"assets missing: {what}")
    sys.exit(77)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    out = pathlib.Path(sys.argv[1]).resolve()
    target = out / "deit_tiny_legacy.onnx"
    if target.exists():
        return
    repository = pathlib.Path(__file__).resolve().parent.parent
    assets = pathlib.Path(os.environ.get("REPQUANT_ASSETS") or repository.parent / "shared" / "assets").resolve()
    script = assets / "export" / "deit_tiny.py"
    if not script.exists():
        missing("export/deit_tiny.py")
    for package in ("torch", "onnx", "timm"):
        if importlib.util.find_spec(package) is None:
            missing(f"the python package {package}")
    if importlib.util.find_spec("torchvision") is None:
        sys.meta_path.append(StandInFinder())
    out.mkdir(parents=True, exist_ok=True)
    work = out / f"legacy.{os.getpid()}"
    work.mkdir(exist_ok=True)
    sys.path.insert(0, str(script.parent))
    sys.argv = [str(script), str(work), "--legacy"]
    runpy.run_path(str(script), run_name="__main__")
    os.replace(work / "deit_tiny_legacy.onnx", target)
    work.rmdir()


if __name__ == "__main__":
    main()
