#!/usr/bin/env python3
"""The rules of docs/architecture.md that a program can check: tools/check_tree.py [ROOT].

Prints each finding as `file:line: what is wrong` and exits with 1 if there is one.
"""
import collections
import pathlib
import re
import subprocess
import sys

MOST_LINES = {".h": 400, ".cpp": 600}
MOST_COLUMNS = 110          # written for 100; a table row may be a little wider
MOST_FUNCTION_LINES = 100
P95_FUNCTION_LINES = 45

TORCH_INCLUDE = re.compile(r'#include [<"](torch|ATen|c10|caffe2)/')
PROTOBUF_INCLUDE = re.compile(r'#include [<"](google/protobuf|onnx)/')
OWN_INCLUDE = re.compile(r'#include "repquant/([a-z0-9_]+)/([^"]+)"')
MACHINE_PATH = re.compile(r"(?<![\w.$})])/(work|root|home|Users)/")
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX)\b(?!.*#\d)")
PRINTS = re.compile(r"\b(std::cout|std::cerr|printf|fprintf|puts|fmt::print|std::print|abort|exit|_exit)\b\s*[(<]")


class Tree:
    def __init__(self, root):
        self.root = root
        self.findings = []
        listed = subprocess.run(["git", "-C", root, "ls-files", "--cached", "--others", "--exclude-standard"],
                                capture_output=True, text=True)
        if listed.returncode == 0:
            names = sorted(set(listed.stdout.splitlines()))
        else:   # an unpacked archive
            names = sorted(str(p.relative_to(root)) for p in root.rglob("*")
                           if not {"build", ".venv", ".git"} & set(p.relative_to(root).parts))
        self.files = [name for name in names if (root / name).is_file() and not (root / name).is_symlink()]
        self.texts = {}
        for name in self.files:
            data = (root / name).read_bytes()
            if b"\0" not in data[:4096]:
                self.texts[name] = data.decode("utf-8", errors="replace")

    def finding(self, name, line, what):
        self.findings.append((name, line, what))

    def sources(self, folder=""):
        for name, text in self.texts.items():
            if name.startswith(folder) and name.endswith((".h", ".cpp")):
                yield name, text

    def exists(self, name):
        return (self.root / name).exists()


def read_modules(tree):
    """Name -> (names it depends on, flags), in the order of repquant/CMakeLists.txt."""
    modules = {}
    text = re.sub(r"#.*", "", tree.texts["repquant/CMakeLists.txt"])
    for arguments in re.findall(r"repquant_module\(([^)]*)\)", text):
        words = arguments.split()
        depends, flags, into_depends = [], set(), False
        for word in words[1:]:
            into_depends = word == "DEPENDS" if word.isupper() else into_depends
            if word in ("TORCH", "ONNX"):
                flags.add(word)
            elif into_depends and not word.isupper():
                depends.append(word)
        modules[words[0]] = (depends, flags)
    return modules


def closure(modules, name):
    reached, todo = set(), [name]
    while todo:
        module = todo.pop()
        if module not in reached:
            reached.add(module)
            todo += modules[module][0] if module in modules else []
    return reached


def is_test(name):
    return re.search(r"(_test|_bench|_fuzz)\.cpp$|/testing\w*\.h$", name) is not None


def check_layers(tree, modules):
    """Includes stay within DEPENDS; tests may also take the testing headers of torch-free modules."""
    for name, text in tree.sources("repquant/"):
        module = name.split("/")[1]
        if module not in modules:
            tree.finding(name, 1, f'folder "{module}" is not listed in repquant/CMakeLists.txt')
            continue
        allowed = closure(modules, module)
        tests = is_test(name)
        for number, line in enumerate(text.splitlines(), 1):
            include = OWN_INCLUDE.match(line)
            helper = include and tests and include[2].startswith("testing") and not modules[include[1]][1]
            if include and include[1] not in allowed and not helper:
                tree.finding(name, number, f'"{module}" includes "{include[1]}", which its DEPENDS does not list')
            if include and not tree.exists(f"repquant/{include[1]}/{include[2]}"):
                tree.finding(name, number, "the included file does not exist")
            if include and module == "methods" and not tests and include[1] == "methods" and include[2] not in ("method.h", "registry.def"):
                tree.finding(name, number, "a method includes a method; what they share moves into a stage")
            if TORCH_INCLUDE.match(line) and "TORCH" not in modules[module][1]:
                tree.finding(name, number, f'torch header in "{module}", which is not marked TORCH')
            if PROTOBUF_INCLUDE.match(line) and "ONNX" not in modules[module][1]:
                tree.finding(name, number, f'protobuf header in "{module}", which is not marked ONNX')
    depends = {depend for depends, _ in modules.values() for depend in depends}
    for unknown in sorted(depends - set(modules)):
        tree.finding("repquant/CMakeLists.txt", 1, f'DEPENDS names "{unknown}", which is no module')


def check_cli_boundary(tree, modules):
    """repquant-run links neither torch nor protobuf: only the sources of the full program may reach them."""
    cmake = tree.texts.get("cli/CMakeLists.txt", "")
    full = set(re.findall(r"\w+\.(?:cpp|h)", (re.search(r"REPQUANT_FULL_SOURCES([^)]*)\)", cmake) or [""] * 2)[1]))
    for name, text in tree.sources("cli/"):
        base = pathlib.PurePath(name).name
        if base in full or base.replace(".h", ".cpp") in full or base.endswith("_test.cpp"):
            continue
        for number, line in enumerate(text.splitlines(), 1):
            include = OWN_INCLUDE.match(line)
            heavy = include and {"TORCH", "ONNX"} & modules.get(include[1], ([], set()))[1]
            if (heavy and include[1] != "load") or TORCH_INCLUDE.match(line):
                tree.finding(name, number, "torch reaches a source of repquant-run")


def check_registries(tree, modules):
    methods = "repquant/methods/registry.def"
    for number, line in enumerate(tree.texts[methods].splitlines(), 1):
        row = re.match(r"REPQUANT_METHOD\((\w+)\)", line)
        for needed in (f"repquant/methods/{row[1]}.cpp", f"repquant/methods/{row[1]}_test.cpp",
                       f"docs/methods/{row[1]}.md") if row else ():
            if not tree.exists(needed):
                tree.finding(methods, number, f'method "{row[1]}" lacks {needed}')
    listed = set(re.findall(r"^REPQUANT_METHOD\((\w+)\)", tree.texts[methods], re.M))
    for name, text in tree.sources("repquant/methods/"):
        if "make_method<" in text and name.endswith(".cpp") and not name.endswith("_test.cpp"):
            if pathlib.PurePath(name).stem not in listed:
                tree.finding(name, 1, "a method that registry.def does not list")

    ops, seen = "repquant/graph/ops.def", {}
    for number, line in enumerate(tree.texts[ops].splitlines(), 1):
        if not line.startswith("REPQUANT_OP("):
            continue
        row = re.fullmatch(r'REPQUANT_OP\((\w+), "(\w+)", "(\w*)"\).*', line)
        if not row:
            tree.finding(ops, number, 'a row is REPQUANT_OP(Name, "printed_name", "OnnxName")')
            continue
        for word in (row[1], row[2], "onnx " + row[3] if row[3] else row[1]):
            if seen.setdefault(word, number) != number:
                tree.finding(ops, number, f'"{word}" is already in line {seen[word]}')

    commands = "cli/commands.def"
    for number, line in enumerate(tree.texts.get(commands, "").splitlines(), 1):
        row = re.match(r"REPQUANT_COMMAND\((\w+),", line)
        if row and f"declare_{row[1]}" not in tree.texts.get(f"cli/{row[1]}.cpp", ""):
            tree.finding(commands, number, f'verb "{row[1]}" lacks cli/{row[1]}.cpp with declare_{row[1]}')

    for module in modules:
        if module not in ("core", "pipeline") and not tree.exists(f"docs/pipeline/{module}.md"):
            tree.finding("repquant/CMakeLists.txt", 1, f"docs/pipeline/{module}.md is missing")


def blank(text):
    """The text without comments, literals and preprocessor lines; every line keeps its place."""
    pattern = re.compile(r'//[^\n]*|/\*.*?\*/|R"(\w*)\(.*?\)\1"|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\'|'
                         r'^[ \t]*#(?:[^\n]*\\\n)*[^\n]*', re.S | re.M)

    def replace(match):
        text = match[0]
        # 1'000 is a number, not the start of a character.
        if text[0] == "'" and match.start() and match.string[match.start() - 1].isalnum():
            return text
        return ("0" if text[0] in "\"'R" else "") + "\n" * text.count("\n")

    return pattern.sub(replace, re.sub(r"(?<=\d)'(?=\d)", "", text))


def functions(text):
    """(first line, number of lines) of each function body, its head included."""
    code, stack, line, head, head_line = blank(text), [], 1, "", 1
    for c in code:
        if c == "\n":
            line += 1
        if c == "{":
            kind = "other"
            if "function" in (frame[0] for frame in stack):
                kind = "inner"
            elif re.search(r"\b(namespace|extern)\b", head) and "(" not in head:
                kind = "namespace"
            elif re.search(r"\b(class|struct|union|enum)\b[^()=]*$", head):
                kind = "namespace"
            elif ")" in head and not re.search(r"=\s*$", head):
                kind = "function"
            stack.append((kind, head_line))
            head = ""
        elif c == "}":
            if stack:
                kind, first = stack.pop()
                if kind == "function":
                    yield first, line - first + 1
            head = ""
        elif c == ";":
            head = ""
        else:
            if not head.strip():
                head_line = line if not c.isspace() else head_line
            head += c


def check_budgets(tree):
    lengths = []
    for name, text in tree.sources():
        lines = text.splitlines()
        most = MOST_LINES[pathlib.PurePath(name).suffix]
        if len(lines) > most:
            tree.finding(name, most + 1, f"{len(lines)} lines; {most} is the budget")
        for number, line in enumerate(lines, 1):
            if len(line) > MOST_COLUMNS:
                tree.finding(name, number, f"{len(line)} columns; 100 is the budget")
        if name.endswith(".h") and "#pragma once" not in text:
            tree.finding(name, 1, "a header without #pragma once")
        for first, length in functions(text):
            if length > MOST_FUNCTION_LINES:
                tree.finding(name, first, f"a function of {length} lines; {MOST_FUNCTION_LINES} is the budget")
            lengths.append(length)
    p95 = sorted(lengths)[int(0.95 * (len(lengths) - 1))] if lengths else 0
    if p95 > P95_FUNCTION_LINES:
        tree.finding("repquant", 0, f"95 % of functions within {p95} lines; {P95_FUNCTION_LINES} is the budget")
    return len(lengths), p95


def check_library_manners(tree):
    """No printing, no abort in the library."""
    for name, text in tree.sources("repquant/"):
        if is_test(name):
            continue
        for number, line in enumerate(blank(text).splitlines(), 1):
            printed = PRINTS.search(line)
            if printed:
                tree.finding(name, number, f"{printed[1]} in library code")


def check_text(tree):
    for name, text in tree.texts.items():
        if name in ("LICENSE", "tools/check_tree.py"):
            continue
        for number, line in enumerate(text.splitlines(), 1):
            if MACHINE_PATH.search(line):
                tree.finding(name, number, "a path of one machine")
            if UNFINISHED.search(line):
                tree.finding(name, number, "unfinished work without an issue number")


def check_links(tree):
    for name, text in tree.texts.items():
        if not name.endswith(".md"):
            continue
        folder = pathlib.PurePosixPath(name).parent
        for number, line in enumerate(text.splitlines(), 1):
            for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", line):
                if "://" not in target and not target.startswith("mailto:") and not tree.exists(folder / target):
                    tree.finding(name, number, f'link to "{target}", which does not exist')


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent.parent).resolve()
    tree = Tree(root)
    modules = read_modules(tree)
    check_layers(tree, modules)
    check_cli_boundary(tree, modules)
    check_registries(tree, modules)
    count, p95 = check_budgets(tree)
    check_library_manners(tree)
    check_text(tree)
    check_links(tree)
    for name, line, what in sorted(tree.findings):
        print(f"{name}:{line}: {what}")
    kinds = collections.Counter(name.split("/")[0] for name, _, _ in tree.findings)
    print(f"check_tree: {len(modules)} modules, {sum(1 for _ in tree.sources())} sources, {count} functions "
          f"(95 % within {p95} lines), {len(tree.findings)} findings {dict(kinds) if kinds else ''}".rstrip())
    sys.exit(1 if tree.findings else 0)


if __name__ == "__main__":
    main()
