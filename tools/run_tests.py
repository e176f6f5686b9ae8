#!/usr/bin/env python3
"""Runs the tests of a build folder: tools/run_tests.py BUILD [ctest options].

Prints ctest's output, then its closing line, then whether the real models were there (REPQUANT_ASSETS): `assets: found` or
`assets: MISSING, n tests skipped`. With CI=true and the folder present, a test skipped for missing assets is a failure.
The closing line is also left in BUILD/closing_line.txt.
"""
import os
import pathlib
import re
import subprocess
import sys
import xml.etree.ElementTree as xml

CLOSING = re.compile(r"\d+% tests passed, \d+ tests? failed out of \d+")


def run_ctest(build, options):
    junit = build / "junit.xml"
    junit.unlink(missing_ok=True)
    command = ["ctest", "--test-dir", str(build), "--output-on-failure", "-j2", "--label-exclude", "exhaustive|slow",
               "--output-junit", str(junit), *options]
    closing = ""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, errors="replace") as process:
        for line in process.stdout:
            print(line, end="", flush=True)
            closing = line.strip() if CLOSING.match(line) else closing
    return process.returncode, closing, junit


def skipped_for_assets(junit):
    """Names of the tests that said `assets missing:`."""
    if not junit.exists():
        return []
    cases = xml.parse(junit).getroot().iter("testcase")
    return [case.get("name") for case in cases
            if case.find("skipped") is not None and "assets missing:" in (case.findtext("system-out") or "")]


def main():
    build = pathlib.Path(sys.argv[1])
    assets = pathlib.Path(os.environ.get("REPQUANT_ASSETS") or "../shared/assets").absolute()
    os.environ["REPQUANT_ASSETS"] = str(assets)
    code, closing, junit = run_ctest(build, sys.argv[2:])
    if not closing:
        sys.exit(f"run_tests: ctest in {build} ran no test")
    skipped = skipped_for_assets(junit)
    found = assets.is_dir()
    if found and skipped and os.environ.get("CI") == "true":
        print("failed: skipped although the assets are there:", *skipped, sep="\n  ")
        code = code or 1
    (build / "closing_line.txt").write_text(closing + "\n")
    print(closing)
    print("assets: found" if found else f"assets: MISSING, {len(skipped)} tests skipped", flush=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
