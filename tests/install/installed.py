"""An installed libeqat under a prefix that is not the configured one.

check_....py BUILD SOURCE ONEDNN"""

import glob, os, re, shutil, subprocess, sys, tempfile, unittest

BUILD, SOURCE, ONEDNN = sys.argv.pop(1), sys.argv.pop(1), sys.argv.pop(1) == "true"
MODEL = os.path.join(SOURCE, "tests", "golden", "llama")
# Nothing that only this environment would find; tests of the installed tree name their own paths.
CLEAN = {k: v for k, v in os.environ.items() if not re.match("LD_|PKG_CONFIG|CMAKE_|DESTDIR", k)}


def run(*command, **environment):
    r = subprocess.run(command, capture_output=True, text=True, env=dict(CLEAN, **environment))
    if r.returncode:
        raise AssertionError(f"{' '.join(command)}: {r.stdout}{r.stderr}")
    return r.stdout


def need(tool):
    if not shutil.which(tool):
        print(f"skipped: {tool} is not installed")
        sys.exit(77)


def write(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as f:
        f.write(text)


class Installed(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.dir = tempfile.mkdtemp(prefix="eqat-install-")
        cls.addClassCleanup(shutil.rmtree, cls.dir)
        run("meson", "install", "-C", BUILD, "--no-rebuild", "--destdir", cls.dir + "/dest")
        (header,) = glob.glob(cls.dir + "/dest/**/eqat/eqat.h", recursive=True)
        cls.prefix = cls.dir + "/moved"
        os.rename(header[: -len("/include/eqat/eqat.h")], cls.prefix)
        (pc,) = glob.glob(cls.prefix + "/**/eqat.pc", recursive=True)
        cls.libs = os.path.dirname(os.path.dirname(pc))
        cls.shared, cls.static = (
            os.path.exists(f"{cls.libs}/libeqat.{kind}") for kind in ("so", "a")
        )

    def use(self, program, **environment):
        """Rounds a model and evaluates it with a program that is the tool."""
        out = tempfile.mkdtemp(dir=self.dir)
        with open(out + "/tokens.u16", "wb") as f:
            f.write(bytes(byte for i in range(64) for byte in (i * 7 % 32, 0)))
        rtn = ["--method", "rtn", "--group-size", "32"]
        run(program, "quantize", MODEL, "--out", out + "/w2", *rtn, **environment)
        text = ["--text", out + "/tokens.u16", "--seq-len", "32"]
        self.assertIn("perplexity", run(program, "eval", out + "/w2", *text, **environment))

    @classmethod
    def configure(cls, source, *options):
        build = tempfile.mkdtemp(dir=cls.dir)
        run("cmake", "-S", source, "-B", build, "-DCMAKE_PREFIX_PATH=" + cls.prefix, *options)
        return build

    @classmethod
    def examples(cls, *options):
        """Built from a copy: nothing of the source tree is in reach."""
        source = tempfile.mkdtemp(dir=cls.dir)
        shutil.copytree(os.path.join(SOURCE, "examples"), source, dirs_exist_ok=True)
        build = cls.configure(source, *options)
        run("cmake", "--build", build, "-j2")
        return build
