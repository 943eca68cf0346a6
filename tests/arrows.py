"""Who may include whom (the layers of the project). Reads every #include "…" and fails on an arrow that is not in the table.

    arrows.py SOURCE_FOLDER
"""
import os
import re
import sys

ALLOWED = {
    "loader": set(),
    "runtime/gpu": {"shaders"},
    "runtime/ops": {"runtime/gpu", "shaders"},
    "runtime/model": {"vision", "runtime/ops", "runtime/gpu", "loader"},
    "vision": {"runtime/ops", "runtime/gpu", "loader"},
    "runtime/engine": {"runtime/model", "vision", "runtime/gpu", "loader", "shaders"},
    "runtime/adapt": {"runtime/engine", "runtime/model", "loader"},
    "runtime/train": {"runtime/adapt", "runtime/engine", "runtime/model", "vision", "runtime/ops", "runtime/gpu", "loader"},
    "runtime/factor": {"runtime/ops", "runtime/gpu", "loader"},
    "runtime/include": set(),
    "shaders": set(),
    "tools": set(),
}
PUBLIC = "zsigma/"


def folder_of(path):
    parts = path.split("/")
    return "/".join(parts[:2]) if parts[0] == "runtime" else parts[0]


def target(folder, name):
    """The folder that an include names, or None for a public or own header."""
    if name.startswith(PUBLIC):
        return None
    if "/" not in name:
        return folder
    first = name.split("/")[0]
    return first if first in ALLOWED else "runtime/" + first


def main():
    os.chdir(sys.argv[1])
    wrong, seen = [], 0
    for top in ("loader", "shaders", "runtime", "vision", "tools"):
        for where, _, names in os.walk(top):
            for name in sorted(names):
                if not name.endswith((".c", ".h", ".comp", ".glsl")):
                    continue
                path = os.path.join(where, name)
                folder = folder_of(path)
                with open(path, encoding="utf-8") as file:
                    for number, line in enumerate(file, 1):
                        match = re.match(r'\s*#include\s+"([^"]+)"', line)
                        if not match:
                            continue
                        seen += 1
                        to = target(folder, match.group(1))
                        if to is not None and to != folder and to not in ALLOWED[folder]:
                            wrong.append(f"{path}:{number}: {folder} may not include {match.group(1)}")
    print("\n".join(wrong) or f"{seen} includes, all along the arrows")
    return 1 if wrong or not seen else 0


sys.exit(main())
