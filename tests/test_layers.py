"""The house has floors: arrows between its modules go down only.

Read from the imports themselves, wherever in a module they are, those for type checking too.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import tmemfs

PACKAGE = Path(tmemfs.__file__).parent

# From the top. A module may import from floors below its own, and from its own room; `cachefs` and
# `swap`, which are on one floor, do not know each other.
FLOORS = [
    {"__main__"},
    {"cli"},
    {"daemon"},
    {"fuse"},
    {"mount"},
    {"cachefs", "swap"},
    {"native"},
    {"tmem"},
    {"pages"},
    {"config", "dump", "metrics", "supervise", "threads"},
    {"__init__", "errors", "glossary", "linux", "units"},
]
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
LEAVES = FLOORS[-1]
# Within a room of several parts, from the top as well.
PARTS = {
    "cli": [{"main"}, {"commands"}, {"system", "output"}],
    "cachefs": [{""}, {"source"}],
}
MOST_MODULES = 16
"""of one folder"""
MOST_LINES = 400
"""of one module"""

KNOWS_FUSE = {"fuse"}
# Memory and its rules: what asks the system for nothing else.
PURE = {"tmem", "pages"}
IMPURE = {
    *("trio", "pyfuse3", "asyncio", "threading", "multiprocessing", "subprocess", "signal"),
    *("io", "socket", "select", "selectors", "tempfile", "shutil", "pathlib", "fcntl", "ctypes"),
    *("logging", "time"),
}
# Of the system, the core may only ask for what is a number.
PURE_CALLS_OF_OS = {"sysconf"}

MODULES = sorted(PACKAGE.rglob("*.py"))


def room(module: Path) -> str:
    """The part of the house that a module is in: its directory or, at the top, itself."""
    return module.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(module: Path) -> Iterator[str]:
    """The full name of everything that a module imports."""
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def rooms_of(name: str) -> Iterator[str]:
    """The room that an imported name is in, if it is in the house."""
    parts = name.split(".")
    if parts[0] == "tmemfs":
        yield parts[1] if len(parts) > 1 and parts[1] in FLOOR else "__init__"


def test_every_module_is_on_a_floor() -> None:
    assert {room(module) for module in MODULES} <= set(FLOOR)
    assert len(MODULES) > 30


@pytest.mark.parametrize("module", MODULES, ids=lambda m: str(m.relative_to(PACKAGE)))
def test_arrows_go_down(module: Path) -> None:
    here = room(module)
    up = [name for name in imports(module) for to in rooms_of(name) if FLOOR[to] < FLOOR[here]]
    assert not up
    if here not in LEAVES:
        beside = [name for name in imports(module) for to in rooms_of(name) if is_beside(to, here)]
        assert not beside
    if here in PURE:
        outside = [n for n in imports(module) if n.split(".")[0] in IMPURE]
        assert not outside, "the core does no I/O and knows no trio"
    if here not in KNOWS_FUSE:
        assert not [n for n in imports(module) if n.split(".")[0] == "pyfuse3"]
    if here in LEAVES:
        assert not [to for name in imports(module) for to in rooms_of(name) if to not in LEAVES]


def is_beside(one: str, other: str) -> bool:
    """Whether two rooms are different ones on the same floor, where neither may know the other."""
    return one != other and FLOOR[one] == FLOOR[other] and other in {"cachefs", "swap"}


def part(name: str) -> int:
    """The floor within its room of a module's full name, below all others if it has none there."""
    _, room, *rest = name.split(".")
    floors = PARTS[room]
    inside = rest[0] if rest else ""
    places = [floor for floor, parts in enumerate(floors) if inside in parts]
    if not places and room == "cachefs":
        return 0
    return places[0] if places else len(floors)


@pytest.mark.parametrize("room", PARTS)
def test_arrows_go_down_within_a_room(room: str) -> None:
    known = set(MODULE_NAMES)
    up = [
        (name, target)
        for name in MODULE_NAMES
        if name.startswith(f"tmemfs.{room}.")
        for target in targets(name)
        if target in known and target.startswith(f"tmemfs.{room}.") and part(target) < part(name)
    ]
    assert not up


def full_name(module: Path) -> str:
    """The name by which a module is imported."""
    parts = module.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULE_NAMES = {full_name(module): module for module in MODULES}


def targets(name: str) -> set[str]:
    """The modules that the module *name* imports, of the house."""
    found = set()
    for imported in imports(MODULE_NAMES[name]):
        if imported in MODULE_NAMES:
            found.add(imported)
        elif (above := imported.rpartition(".")[0]) in MODULE_NAMES:
            found.add(above)
    return found - {name}


def test_there_is_no_circle() -> None:
    """Of modules that import one another, those for type checking too."""
    waiting = {name: targets(name) - {"tmemfs"} for name in MODULE_NAMES}
    # A package is there as soon as one of its modules is wanted: what it imports counts for itself.
    while ready := [name for name, needs in waiting.items() if not needs & waiting.keys()]:
        for name in ready:
            del waiting[name]
    assert not waiting


def test_no_folder_and_no_module_is_too_large() -> None:
    folders: dict[Path, int] = {}
    for module in MODULES:
        folders[module.parent] = folders.get(module.parent, 0) + 1
    assert {str(f): n for f, n in folders.items() if n > MOST_MODULES} == {}
    lines = {full_name(module): len(module.read_text().splitlines()) for module in MODULES}
    assert {name: count for name, count in lines.items() if count > MOST_LINES} == {}


@pytest.mark.parametrize(
    "module",
    [module for module in MODULES if room(module) in PURE],
    ids=lambda m: str(m.relative_to(PACKAGE)),
)
def test_the_core_asks_the_system_for_nothing(module: Path) -> None:
    called = {
        node.attr
        for node in ast.walk(ast.parse(module.read_text()))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "os"
    }
    assert called <= PURE_CALLS_OF_OS
    names = {
        node.func.id
        for node in ast.walk(ast.parse(module.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert not names & {"open", "print", "input"}


def test_a_command_that_does_not_mount_does_not_load_what_mounts() -> None:
    """The command line is quick because it loads the daemon only to be one."""
    import subprocess
    import sys

    program = (
        "import sys, contextlib, io\n"
        "from tmemfs.cli.main import main\n"
        "with contextlib.redirect_stdout(io.StringIO()):\n"
        "    main(['--version'])\n"
        "    for command in ('status', 'mount', 'top', 'set', 'warm', 'drop'):\n"
        "        main([command, '--help'])\n"
        "print([name for name in ('pyfuse3', 'trio', 'lz4', 'rich') if name in sys.modules])\n"
    )
    root = str(PACKAGE.parent)
    out = subprocess.check_output([sys.executable, "-c", program], cwd=root, text=True)
    assert out.strip() == "[]"
