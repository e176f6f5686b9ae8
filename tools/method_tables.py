#!/usr/bin/env python3
"""The option tables of docs/methods, from the program: tools/method_tables.py [--write] REPQUANT.

Without --write: exits with 1 and names the pages whose table is not what `repquant methods NAME` says.
"""
import json
import pathlib
import re
import subprocess
import sys

BEGIN, END = "<!-- options -->", "<!-- /options -->"
ROOT = pathlib.Path(__file__).resolve().parent.parent


def ask(program, *arguments):
    answer = subprocess.run([program, "methods", *arguments, "--json"], capture_output=True, text=True, check=True)
    return json.loads(answer.stdout)["result"]["methods"]


def text_of(value):
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:g}" if isinstance(value, float) else str(value)


def table(method):
    if not method["options"]:
        return "None.\n"
    lines = ["| option | default | values | meaning |", "| --- | --- | --- | --- |"]
    for option in method["options"]:
        values = ", ".join(f"`{choice}`" for choice in option.get("choices", []))
        if "range" in option:
            values = " to ".join(text_of(float(bound)) for bound in option["range"])
        if isinstance(option["default"], bool):
            values = "`true`, `false`"
        lines.append(f"| `{option['name']}` | `{text_of(option['default'])}` | {values} | {option['help']} |")
    return "\n".join(lines) + "\n"


def main():
    write = sys.argv[1] == "--write"
    program = sys.argv[-1]
    stale = []
    for row in ask(program):
        page = ROOT / "docs" / "methods" / f"{row['name']}.md"
        old = page.read_text()
        body = f"{BEGIN}\n{table(ask(program, row['name'])[0])}{END}"
        new = re.sub(f"{BEGIN}.*?{END}", lambda _: body, old, flags=re.S)
        if BEGIN not in old:
            stale.append(f"{page.name}: no {BEGIN}")
        elif new != old and write:
            page.write_text(new)
        elif new != old:
            stale.append(f"docs/methods/{page.name}: the option table is stale; run `make docs`")
    print("\n".join(stale) or "option tables: up to date")
    sys.exit(1 if stale else 0)


if __name__ == "__main__":
    main()
