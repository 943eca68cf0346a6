"""What the end-to-end tests share: running zsigma as a user does, the models they use, and how a file of tests is run.

Environment: ZSIGMA, the program; ZSIGMA_TINY, a tiny dense model; ZSIGMA_OUTPUT, a folder to write into; ZSIGMA_LAYERS, the
folder with the validation layer's manifest, if there is one — CTest sets these four. ZSIGMA_MODEL, SmolLM2-135M-Instruct.Q4_1.gguf, is the user's to give.
"""
import glob
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest

SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PROGRAM = os.environ.get("ZSIGMA", os.path.join(SOURCE, "build", "zsigma"))
OUTPUT = os.environ.get("ZSIGMA_OUTPUT", os.path.join(SOURCE, "build", "test-output"))
EXPERTS = os.path.join(SOURCE, "assets", "experts")
VISION = os.path.join(SOURCE, "assets", "vision")
SKIPPED = 77  # what CTest takes for "not run"
LIMIT_S = 120


class Result:
    """Exit status and both streams of one run."""

    def __init__(self, status, out, err):
        self.status, self.out_bytes, self.err = status, out, err.decode("utf-8", "replace")
        self.out = out.decode("utf-8", "replace")

    def json(self):
        return json.loads(self.out)


def environment(**changes):
    """The environment of a run: caches of its own, no colours by accident; None takes a variable out. What the driver compiled is there for all
    tests; what the program learned of the device's speed is not kept, or plans would depend on how busy the machine was before."""
    cache = os.path.join(OUTPUT, "e2e-cache", os.path.basename(sys.argv[0]))
    for rates in glob.glob(os.path.join(glob.escape(cache), "zsigma", "*.rates")):
        os.remove(rates)
    variables = dict(os.environ, XDG_CACHE_HOME=cache, MESA_SHADER_CACHE_DIR=os.path.join(OUTPUT, "e2e-cache"), LC_ALL="C.UTF-8")
    variables.pop("NO_COLOR", None)
    for name, value in changes.items():
        if value is None:
            variables.pop(name, None)
        else:
            variables[name] = value
    return variables


def zsigma(*arguments, text=None, env=None, **options):
    """Runs the program to its end."""
    done = subprocess.run([PROGRAM, *arguments], input=text.encode() if isinstance(text, str) else text, env=env or environment(),
                          stdin=None if text is not None else subprocess.DEVNULL, stdout=options.pop("stdout", subprocess.PIPE),
                          stderr=subprocess.PIPE, timeout=LIMIT_S, **options)
    return Result(done.returncode, done.stdout or b"", done.stderr)


def start(*arguments, env=None, **options):
    """Starts the program and leaves it running."""
    return subprocess.Popen([PROGRAM, *arguments], env=env or environment(), stdin=options.pop("stdin", subprocess.DEVNULL),
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)


def finish(process):
    out, err = process.communicate(timeout=LIMIT_S)
    return Result(process.returncode, out, err)


def on_terminal(*arguments, env=None):
    """Runs the program with both streams on a pseudo-terminal; gives the exit status and what was shown."""
    import pty
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(PROGRAM, [PROGRAM, *arguments], env or environment(TERM="xterm"))
    shown = b""
    while True:
        try:
            part = os.read(terminal, 4096)
        except OSError:  # the other end was closed
            break
        if not part:
            break
        shown += part
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown.decode("utf-8", "replace")


class ProgramTest(unittest.TestCase):
    """A test with a folder of its own and the assertions that most tests need."""

    def setUp(self):
        os.makedirs(OUTPUT, exist_ok=True)
        self.folder = tempfile.mkdtemp(prefix="e2e-", dir=OUTPUT)
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, data):
        path = self.path(name)
        with open(path, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
        return path

    def ok(self, *arguments, **options):
        result = zsigma(*arguments, **options)
        self.assertEqual(result.status, 0, f"{arguments}: {result.err}")
        return result

    def ok_json(self, *arguments, **options):
        """--json prints one JSON value and nothing else on standard output."""
        result = self.ok(*arguments, "--json", **options)
        return result.json()

    def refused(self, status, *words, by, **options):
        """The command fails with this exit status; its message holds the words, and nothing is on standard output."""
        result = zsigma(*by, **options)
        self.assertEqual(result.status, status, f"{by}: {result.err}")
        self.assertIn("zsigma: ", result.err)
        for word in words:
            self.assertIn(word, result.err)
        self.assertEqual(result.out, "", by)
        self.assertNotIn("AddressSanitizer", result.err)
        return result


class TinyTest(ProgramTest):
    """A test on the tiny model, dense and factored, that the build's fixtures made."""

    dense = os.environ.get("ZSIGMA_TINY", "")
    factored = dense.replace(".gguf", "-factored.gguf")
    other = dense.replace(".gguf", "-other.gguf")  # other weights, same shapes

    @classmethod
    def setUpClass(cls):
        for path in [cls.dense, cls.factored, cls.other]:
            if not os.path.exists(path):
                raise AssertionError("set ZSIGMA_TINY to the tiny model that CTest's fixtures make")


class RealTest(ProgramTest):
    """A test on SmolLM2; its factored form is kept beside the other test output, because making it takes a while."""

    dense = os.environ.get("ZSIGMA_MODEL", "")
    factored = os.path.join(OUTPUT, "smollm2-f16.gguf")

    @classmethod
    def setUpClass(cls):
        if not cls.dense:
            raise unittest.SkipTest("ZSIGMA_MODEL is not set: give it the path of SmolLM2-135M-Instruct.Q4_1.gguf")
        if not os.path.exists(cls.factored):
            os.makedirs(OUTPUT, exist_ok=True)
            subprocess.run([PROGRAM, "factor", cls.dense, "-o", cls.factored, "--quiet"], check=True)


def main():
    """Runs the tests of the calling file; a file whose tests were all skipped gives the status that CTest reports as such."""
    program = unittest.main(module="__main__", verbosity=2, exit=False)
    result = program.result
    for test, reason in result.skipped:
        print(f"SKIPPED {test}: {reason}", file=sys.stderr)
    if not result.wasSuccessful():
        sys.exit(1)
    # A class that is skipped as a whole counts none of its tests as run.
    ran = result.testsRun - sum(isinstance(test, unittest.TestCase) for test, _ in result.skipped)
    sys.exit(0 if ran > 0 else SKIPPED)


def interrupt(process):
    process.send_signal(signal.SIGINT)
