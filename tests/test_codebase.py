"""The rules of the house that a machine can check: which way dependencies point, what a kernel object
exports, the size of files, and that everything public says what it does and that its examples run."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import pkgutil
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import gvcore

ROOT = Path(__file__).resolve().parent.parent
CSRC = ROOT / "csrc"
PYTHON = ROOT / "python" / "gvcore"

# A room may use itself and the rooms before it.
CSRC_ROOMS = ["base", "kernels", "ops", "plan", "bind"]

# The same for Python; rooms of one row may use one another, but not in a circle.
PYTHON_ROOMS = [
    {"_core"},
    {"seeding", "_settings", "_exclusive", "_files", "config", "datasets"},
    {"functional"},
    {"nn", "optim", "schedules", "data", "metrics"},
    {"diagnostics", "checkpoint"},
    {"callbacks"},
    {"train"},
    {"models", "doctor", "inspection", "rangetest"},
    {"sklearn", "interop", "cli", "demo", "bench", "cython_kernels"},
    {"__main__"},
]
# (importing file, imported room): why this arrow points the other way.
PYTHON_EXCEPTIONS: dict[tuple[str, str], str] = {
    ("callbacks.py", "train"): "for type checkers alone: a hook gets the Trainer that calls it",
}

KERNEL_HEADERS = {"cstddef", "cstdint", "immintrin.h"}
MOST_LINES = 600


# ---- C++ ----------------------------------------------------------------------------------------


def csrc_files() -> list[Path]:
    return sorted(path for path in CSRC.rglob("*") if path.suffix in {".h", ".hpp", ".cpp"})


def includes(path: Path) -> list[tuple[str, str]]:
    """(kind, name) of each include, the kind being the opening quote or bracket."""
    return re.findall(r'^\s*#\s*include\s*(["<])([^">]+)[">]', path.read_text(), flags=re.MULTILINE)


def csrc_room(path: Path) -> str:
    return path.relative_to(CSRC).parts[0]


def test_csrc_has_no_unknown_room() -> None:
    assert {csrc_room(path) for path in csrc_files()} <= {*CSRC_ROOMS, "include"}


def test_csrc_includes_point_one_way() -> None:
    wrong = []
    for path in csrc_files():
        room = csrc_room(path)
        for kind, name in includes(path):
            if kind == "<":
                continue
            target = (path.parent / name).resolve()
            if not target.is_file() or CSRC not in target.parents:
                wrong.append(f"{path.relative_to(ROOT)}: no such file: {name}")
            elif room == "include" or csrc_room(target) == "include":
                if room != csrc_room(target) and room not in {"bind", "ops"}:
                    wrong.append(f"{path.relative_to(ROOT)}: {name}")
            elif CSRC_ROOMS.index(csrc_room(target)) > CSRC_ROOMS.index(room):
                wrong.append(f"{path.relative_to(ROOT)}: {name}")
    assert not wrong


def test_only_bind_includes_pybind11() -> None:
    users = {
        csrc_room(path)
        for path in csrc_files()
        for _, name in includes(path)
        if name.startswith("pybind11/") or name in {"Python.h", "numpy/arrayobject.h"}
    }
    assert users <= {"bind"}


def test_only_parallel_cpp_includes_openmp() -> None:
    users = [path for path in csrc_files() if ("<", "omp.h") in includes(path)]
    assert users == [CSRC / "base" / "parallel.cpp"]


def test_no_openmp_pragma_outside_parallel_cpp() -> None:
    pragma = re.compile(r"^\s*#\s*pragma\s+omp\b", flags=re.MULTILINE)
    users = {path.relative_to(CSRC).as_posix() for path in csrc_files() if pragma.search(path.read_text())}
    assert users <= {"base/parallel.cpp"}


def test_kernels_include_no_library() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}: <{name}>"
        for path in csrc_files()
        if csrc_room(path) == "kernels"
        for kind, name in includes(path)
        if kind == "<" and name not in KERNEL_HEADERS
    ]
    assert not wrong


@pytest.mark.skipif(sys.platform != "linux", reason="reads ELF objects")
def test_a_kernel_object_defines_one_symbol_and_nothing_weak(kernel_objects: dict[str, Path]) -> None:
    expected = {"scalar"}
    if platform.machine() in {"x86_64", "AMD64"}:
        expected |= {"avx2", "avx512"}
    assert set(kernel_objects) == expected
    nm = shutil.which("nm")
    assert nm is not None, "nm (binutils) is needed to look into the objects"
    for isa, path in kernel_objects.items():
        listing = subprocess.run([nm, "-P", str(path)], capture_output=True, text=True, check=True).stdout
        symbols = [line.split()[:2] for line in listing.splitlines()]
        # Upper case: visible to the linker; U is only a use. Weak, unique and common ones count as well.
        visible = sorted(name for name, kind in symbols if kind != "U" and (kind.isupper() or kind in "uvw"))
        assert visible == [f"gv_kernels_{isa}"], f"{path} exports {visible}"


# ---- Python -------------------------------------------------------------------------------------


def python_files() -> list[Path]:
    return sorted(path for path in PYTHON.rglob("*.py*") if path.suffix in {".py", ".pyi", ".pyx", ".pxd"})


def python_room(path: Path) -> str:
    return path.relative_to(PYTHON).parts[0].split(".")[0]


def imported_rooms(path: Path) -> Iterator[str]:
    """The rooms of gvcore that a file imports, wherever the import stands; "" is the package itself."""
    package = ["gvcore", *path.relative_to(PYTHON).parent.parts]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                parts = alias.name.split(".")
                if parts[0] == "gvcore":
                    yield parts[1] if len(parts) > 1 else ""
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            parts = [*base, *(node.module.split(".") if node.module else [])]
            if parts[:1] != ["gvcore"]:
                continue
            if len(parts) > 1:
                yield parts[1]
            else:
                for alias in node.names:
                    yield alias.name if is_room(alias.name) else ""


def is_room(name: str) -> bool:
    return name in set().union(*PYTHON_ROOMS) or name in {python_room(path) for path in python_files()}


def rank(room: str) -> int:
    for number, row in enumerate(PYTHON_ROOMS):
        if room in row:
            return number
    pytest.fail(f"gvcore.{room} has no place in PYTHON_ROOMS yet")


def python_arrows() -> set[tuple[str, str, str]]:
    """(file, its room, imported room), without the package's front door, which imports everything."""
    return {
        (path.relative_to(PYTHON).as_posix(), python_room(path), target)
        for path in python_files()
        if path.suffix in {".py", ".pyi"} and python_room(path) != "__init__"
        for target in imported_rooms(path)
    }


def test_every_python_room_has_its_place() -> None:
    assert {python_room(path) for path in python_files()} - {"__init__"} <= set().union(*PYTHON_ROOMS)


def test_python_imports_point_one_way() -> None:
    top = rank("cli")
    wrong = []
    for file, room, target in sorted(python_arrows()):
        if target == "":
            # The package itself is everything: only the rooms above everything may ask for it.
            if rank(room) < top:
                wrong.append(f"{file} imports gvcore itself")
        elif rank(target) > rank(room) and (file, target) not in PYTHON_EXCEPTIONS:
            wrong.append(f"{file} imports gvcore.{target}")
    assert not wrong


def test_python_rooms_import_in_no_circle() -> None:
    uses: dict[str, set[str]] = {}
    for file, room, target in python_arrows():
        if target not in {room, ""} and (file, target) not in PYTHON_EXCEPTIONS:
            uses.setdefault(room, set()).add(target)
    while uses:
        leaves = [room for room, targets in uses.items() if not targets & set(uses)]
        assert leaves, f"these rooms import one another in a circle: {sorted(uses)}"
        for room in leaves:
            del uses[room]


def test_every_exception_is_still_needed() -> None:
    arrows = {(file, target) for file, _, target in python_arrows()}
    assert set(PYTHON_EXCEPTIONS) <= arrows


def modules() -> list[str]:
    found = pkgutil.walk_packages(gvcore.__path__, "gvcore.")
    return ["gvcore", *(info.name for info in found if info.name != "gvcore.__main__")]


def load(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = (error.name or "").split(".")[0]
        if package in {"", "gvcore"}:
            raise
        pytest.skip(f"{package} is not installed")


def public(owner: object, name: str, seen: set[int]) -> Iterator[tuple[str, object]]:
    """Everything of gvcore that can be reached from `owner` by names that are promised."""
    if id(owner) in seen:
        return
    seen.add(id(owner))
    yield name, owner
    if inspect.ismodule(owner):
        for member in owner.__all__:
            value = getattr(owner, member)
            if inspect.ismodule(value) or (callable(value) and of_gvcore(value)):
                yield from public(value, f"{name}.{member}", seen)
    elif inspect.isclass(owner):
        for member, value in vars(owner).items():
            if not member.startswith("_") and (inspect.isroutine(value) or isinstance(value, property)):
                yield from public(value, f"{name}.{member}", seen)


def of_gvcore(value: object) -> bool:
    return (getattr(value, "__module__", None) or "").split(".")[0] == "gvcore"


def documented(owner: object, name: str) -> bool:
    text = inspect.getdoc(owner) or ""
    # A dataclass without a docstring gets its signature for one.
    return text != "" and not text.startswith(f"{name.rpartition('.')[2]}(")


def test_everything_public_has_a_docstring() -> None:
    seen: set[int] = set()
    bare = [name for name, owner in public(gvcore, "gvcore", seen) if not documented(owner, name)]
    for name in modules():
        if "._" in name:
            continue
        try:
            module = load(name)
        except pytest.skip.Exception:  # an optional package is missing; `make test` has them all
            continue
        if hasattr(module, "__all__"):  # without one a module promises nothing
            bare += [name for name, owner in public(module, name, seen) if not documented(owner, name)]
    assert not bare


def test_no_section_of_a_docstring_stands_twice() -> None:
    for name, owner in public(gvcore, "gvcore", set()):
        titles = re.findall(r"^(\w+)\n-{3,}$", inspect.getdoc(owner) or "", re.MULTILINE)
        assert len(titles) == len(set(titles)), name


@pytest.mark.parametrize("name", ["nn", "functional", "metrics", "config", "optim", "models"])
def test_docstrings_describe_every_argument(name: str) -> None:
    room = load(f"gvcore.{name}")
    missing = []
    for public_name in room.__all__:
        thing = getattr(room, public_name)
        if not inspect.isfunction(thing) and not inspect.isclass(thing):
            continue
        section = re.search(
            r"^Parameters\n-+\n(.*?)(^\w+\n-+\n|\Z)", inspect.getdoc(thing) or "", re.M | re.S
        )
        # Entries begin at the left margin: "in_features, out_features : int".
        entries = re.findall(r"^[*\w].*", section[1] if section else "", re.M)
        named = {word for entry in entries for word in re.findall(r"\w+", entry.split(" : ")[0])}
        missing += [f"{public_name}({p})" for p in inspect.signature(thing).parameters if p not in named]
    assert not missing


def test_what_takes_arguments_says_which_and_what_it_raises() -> None:
    silent = []
    for name, owner in public(gvcore, "gvcore", set()):
        made = inspect.isclass(owner) or (inspect.isfunction(owner) and "." not in owner.__qualname__)
        if not made or name.startswith("gvcore.nn.") or not inspect.signature(owner).parameters:
            continue
        text = inspect.getdoc(owner) or ""
        if "Attributes\n---" in text and "Parameters\n---" not in text:  # a result, which users do not make
            continue
        silent += [
            f"{name}: {section}" for section in ("Parameters", "Raises") if f"{section}\n---" not in text
        ]
    assert not silent


@pytest.mark.parametrize("name", modules())
def test_examples_in_docstrings_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = doctest.testmod(load(name), optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0


# ---- files --------------------------------------------------------------------------------------


def test_no_file_is_too_long() -> None:
    folders = ["csrc", "python", "tests", "benchmarks", "examples"]
    suffixes = {".py", ".pyi", ".pyx", ".pxd", ".h", ".hpp", ".c", ".cpp"}
    too_long = {
        path.relative_to(ROOT).as_posix(): lines
        for folder in folders
        for path in (ROOT / folder).rglob("*")
        if path.suffix in suffixes and (lines := len(path.read_text().splitlines())) > MOST_LINES
    }
    assert not too_long


def test_no_catch_all_names() -> None:
    names = re.compile(r"(^|_)(utils?|helpers?|misc|common)($|_)")
    wrong = [path for folder in (CSRC, PYTHON) for path in folder.rglob("*") if names.search(path.stem)]
    assert not wrong
