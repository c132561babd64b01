"""``ctcguard run X`` against ``python X``: the same output, exit code and traceback, for programs of plain Python."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest

UNGUARDED = (
    "ctcguard: nothing was guarded: the program imported none of the frameworks looked for "
    "(torch, transformers, optax)\n"
)

SHOW = """
import __main__, sys
print(sys.argv, sys.path[0], __file__, __name__, __package__, __cached__, __spec__ and __spec__.name)
print(__main__.__dict__ is globals(), __builtins__, type(__loader__).__name__)
"""
ARGS = ("a", "--on-error", "-m", "--", "--help", "")

FILES = {
    "show.py": SHOW,
    "deep/show.py": SHOW,
    "application/__main__.py": SHOW,
    "package/__init__.py": "import sys; print('package', sys.argv[0], __name__)",
    "package/__main__.py": "from . import inner\nprint('relative', inner.value)" + SHOW,
    "package/inner.py": "from __future__ import annotations\nvalue = 3" + SHOW,
    "broken/__init__.py": "import a_module_that_is_not_there",
    "broken/inner.py": "",
    "syntax.py": "print('never'\n",
    "raises.py": """
        def fails():
            1 / 0
        try:
            fails()
        except ZeroDivisionError as error:
            raise ValueError("worse") from error
        """,
    "raises_late.py": "import atexit\natexit.register(print, 'atexit')\nimport json.there_is_no_such_module",
    "exits.py": """
        import atexit, sys, threading, time
        atexit.register(print, "atexit")
        threading.Thread(target=lambda: (time.sleep(0.1), print("thread"))).start()
        try:
            sys.exit(eval(sys.argv[1]))
        finally:
            print("finally")
        """,
    "leaves.py": "import os\nprint('before', flush=True)\nos._exit(5)",
    "interrupted.py": """
        import os, signal, sys
        print("before", flush=True)
        if "caught" in sys.argv:
            signal.signal(signal.SIGINT, lambda *_: sys.exit(4))
        os.kill(os.getpid(), signal.SIGINT)
        """,
    "terminated.py": "import os, signal\nos.kill(os.getpid(), signal.SIGTERM)",
    "hooked.py": """
        import sys
        def hook(kind, error, traceback):
            print(kind, error, traceback.tb_lineno, traceback.tb_frame.f_code.co_name, traceback.tb_next)
        print(sys.excepthook is sys.__excepthook__)
        sys.excepthook = hook
        raise KeyError("lost")
        """,
    "pickled.py": """
        import dataclasses, inspect, pickle
        @dataclasses.dataclass
        class Point:
            x: "int"
        print(pickle.loads(pickle.dumps(Point(3))), pickle.dumps(Point)[-30:], inspect.getsource(Point))
        """,
    "spawned.py": """
        import multiprocessing, sys
        class Item:
            pass
        def work(queue):
            queue.put((type(Item()).__module__, __name__, sys.argv))
        if __name__ == "__main__":
            context = multiprocessing.get_context("spawn")
            queue = context.Queue()
            process = context.Process(target=work, args=(queue,))
            process.start()
            print(queue.get())
            process.join()
            print(process.exitcode)
        """,
    "forked.py": """
        import os, sys
        child = os.fork()
        if child == 0:
            sys.exit(7)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        """,
    "closes.py": "import os, sys\nprint('before')\nsys.stderr.close()",
    "warns.py": "import warnings\nwarnings.warn('old', DeprecationWarning)\n",
}


class Outcome(NamedTuple):
    """What a process leaves."""

    code: int
    out: str
    err: str


def outcome(folder: Path, *command: str, **environment: str) -> Outcome:
    done = subprocess.run(
        [sys.executable, *command],
        check=False,
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("programs")
    for name, text in FILES.items():
        file = folder / name
        file.parent.mkdir(exist_ok=True)
        lines = text.strip("\n").splitlines()
        indent = len(lines[0]) - len(lines[0].lstrip()) if lines else 0
        file.write_text("\n".join(line[indent:] for line in lines) + "\n")
    (folder / "link.py").symlink_to(Path("deep") / "show.py")
    with zipfile.ZipFile(folder / "archive.zip", "w") as archive:
        archive.writestr("__main__.py", SHOW)
    subprocess.run(
        [sys.executable, "-c", "import py_compile; py_compile.compile('show.py', 'show.pyc')"], cwd=folder, check=True
    )
    return folder


PROGRAMS = [
    ("show.py", *ARGS), ("deep/show.py",), ("link.py",), ("show.pyc", "x"), ("application", "x"), ("archive.zip", "x"),
    ("-m", "show", *ARGS), ("-m", "package", "x"), ("-m", "package.inner", "-x"), ("-m", "broken.inner"),
    ("syntax.py",), ("-m", "syntax"), ("raises.py",), ("-m", "raises"), ("raises_late.py",),
    ("exits.py", "None"), ("exits.py", "0"), ("exits.py", "7"), ("exits.py", "'a message'"), ("exits.py", "(1, 2)"),
    ("leaves.py",), ("interrupted.py",), ("interrupted.py", "caught"), ("terminated.py",), ("hooked.py",),
    ("pickled.py",), ("-m", "pickled"), ("spawned.py", "x"), ("-m", "spawned"), ("forked.py",), ("warns.py",),
    ("closes.py",),
]  # fmt: skip
UNSAID = {"leaves.py", "terminated.py", "closes.py"}  # nothing is left to say anything with


@pytest.mark.parametrize("program", PROGRAMS, ids=" ".join)
def test_the_program_does_not_notice(folder: Path, program: tuple[str, ...]) -> None:
    plain = outcome(folder, *program)
    guarded = outcome(folder, "-m", "ctcguard", "run", *program)
    assert guarded.err.count(UNGUARDED) == (program[0] not in UNSAID)
    assert guarded._replace(err=guarded.err.replace(UNGUARDED, "")) == plain._replace(err=without_runpy(plain.err))


def without_runpy(traceback: str) -> str:
    """The frames by which ``python -m`` finds its module are its own; so are those of the import system."""
    lines = [line for line in traceback.splitlines(keepends=True) if not line.startswith('  File "<frozen ')]
    text = "".join(lines)
    return text.removeprefix("Traceback (most recent call last):\n") if "SyntaxError" in text else text


def test_the_comparison_sees_a_difference(folder: Path) -> None:
    assert outcome(folder, "show.py", "a") != outcome(folder, "-m", "ctcguard", "run", "show.py", "b")
    assert "ctcguard" not in outcome(folder, "-m", "ctcguard", "run", "raises.py").err.replace(UNGUARDED, "")


def test_the_installed_command_does_the_same(folder: Path) -> None:
    command = str(Path(sys.executable).parent / "ctcguard")
    assert outcome(folder, command, "run", "show.py", "x") == outcome(folder, "-m", "ctcguard", "run", "show.py", "x")


def test_safe_path_is_respected(folder: Path) -> None:
    for program in (("show.py",), ("application",)):
        guarded = outcome(folder, "-m", "ctcguard", "run", *program, PYTHONSAFEPATH="1")
        assert guarded.out == outcome(folder, *program, PYTHONSAFEPATH="1").out


def test_an_interrupt_ends_the_process_by_its_signal(folder: Path) -> None:
    assert outcome(folder, "-m", "ctcguard", "run", "interrupted.py").code == -signal.SIGINT


def test_little_is_imported_before_the_program(folder: Path) -> None:
    (folder / "imports.py").write_text(
        "import sys\nprint([m for m in ('rich', 'numpy', 'ctcguard.settings') if m in sys.modules])\n"
    )
    assert outcome(folder, "-m", "ctcguard", "run", "imports.py").out == "[]\n"
