"""libeqat as another program finds it: installed, through pkg-config, shared and static. The
program is the tool, which is written on the public interface alone."""

import glob, os, shlex, shutil, subprocess, sys, tempfile, unittest

BUILD, SOURCE, ONEDNN = sys.argv.pop(1), sys.argv.pop(1), sys.argv.pop(1) == "true"
CC = shlex.split(os.environ.get("CC", "cc"))
MODEL = os.path.join(SOURCE, "tests", "golden", "llama")


def run(*command, env=None):
    r = subprocess.run(command, capture_output=True, text=True, env=env)
    if r.returncode:
        raise AssertionError(f"{' '.join(command)}: {r.stdout}{r.stderr}")
    return r.stdout


class Install(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.dir = tempfile.mkdtemp(prefix="eqat-install-")
        run("meson", "install", "-C", BUILD, "--no-rebuild", "--destdir", cls.dir)
        (cls.pc,) = glob.glob(cls.dir + "/**/eqat.pc", recursive=True)
        with open(cls.pc) as f:
            lines = f.read().split("\n")
        assert lines[0].startswith("prefix=/")
        lines[0] = "prefix=" + cls.dir + lines[0][len("prefix=") :]
        with open(cls.pc, "w") as f:
            f.write("\n".join(lines))
        cls.libs = os.path.dirname(os.path.dirname(cls.pc))
        cls.env = dict(os.environ, LD_LIBRARY_PATH=cls.libs)

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.dir)

    def flags(self, *options):
        search = os.pathsep.join([os.path.dirname(self.pc), os.environ.get("PKG_CONFIG_PATH", "")])
        env = dict(os.environ, PKG_CONFIG_PATH=search)
        return run("pkg-config", *options, "--cflags", "--libs", "eqat", env=env).split()

    def program(self, name, *flags):
        path = os.path.join(self.dir, name)
        sources = sorted(glob.glob(os.path.join(SOURCE, "examples", "eqat", "*.c")))
        run(*CC, "-D_GNU_SOURCE", "-o", path, *sources, *flags)
        return path

    def uses(self, path):
        out = os.path.join(self.dir, "rounded-" + os.path.basename(path))
        tokens = os.path.join(self.dir, "tokens.u16")
        with open(tokens, "wb") as f:
            f.write(bytes(byte for i in range(64) for byte in (i * 7 % 32, 0)))
        rtn = ["quantize", MODEL, "--out", out, "--method", "rtn", "--group-size", "32"]
        run(path, *rtn, env=self.env)
        return run(path, "eval", out, "--text", tokens, "--seq-len", "32", env=self.env)

    def test_shared(self):
        if not glob.glob(self.libs + "/libeqat.so"):
            self.skipTest("a static build")
        program = self.program("shared", *self.flags(), "-ljansson", "-lm")
        self.assertIn("libeqat.so", run("ldd", program, env=self.env))
        self.assertIn("perplexity", self.uses(program))

    def test_static(self):
        """libeqat.a holds everything of ours; without oneDNN the whole program can be static."""
        if not glob.glob(self.libs + "/libeqat.a"):
            self.skipTest("a shared build")
        archive = [] if ONEDNN else ["-static"]
        flags = [f if f != "-leqat" else "-l:libeqat.a" for f in self.flags("--static")]
        self.assertEqual("-ldnnl" in flags, ONEDNN)
        program = self.program("static", *archive, *flags)
        self.assertIn("perplexity", self.uses(program))
        linked = subprocess.run(["ldd", program], capture_output=True, text=True).stdout
        self.assertEqual("libdnnl" in linked, ONEDNN)
        self.assertNotIn("libeqat", linked)
        if not ONEDNN:
            self.assertNotIn("=>", linked)


if __name__ == "__main__":
    unittest.main()
