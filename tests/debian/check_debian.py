"""The Debian packages: built as packaging/debian/README.md says, without an error of lintian; what
is in them; the tool and the Python module of the unpacked packages run.  Takes minutes, so that
EQAT_DEBIAN=1 must ask for it; DEB_BUILD_OPTIONS=nocheck leaves the tests within the build out."""

import glob, os, pathlib, re, shutil, subprocess, sys, tempfile, unittest

SOURCE = pathlib.Path(sys.argv.pop(1))
NEEDED = ("git", "dpkg-buildpackage", "dh", "dh_python3", "lintian")


def run(*command, **keywords):
    r = subprocess.run(command, capture_output=True, text=True, errors="replace", **keywords)
    if r.returncode:
        raise AssertionError(f"{' '.join(map(str, command))}: {(r.stdout + r.stderr)[-4000:]}")
    return r.stdout


class Packages(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.dir = tempfile.mkdtemp(prefix="eqat-debian-")
        cls.addClassCleanup(shutil.rmtree, cls.dir)
        tree = os.path.join(cls.dir, "libeqat")
        names = run("git", "-C", SOURCE, "ls-files", "-z").split("\0")
        for name in filter(None, names):
            os.makedirs(os.path.dirname(os.path.join(tree, name)), exist_ok=True)
            shutil.copy2(SOURCE / name, os.path.join(tree, name), follow_symlinks=False)
        shutil.copytree(os.path.join(tree, "packaging/debian"), os.path.join(tree, "debian"))
        run("dpkg-buildpackage", "-us", "-uc", "-b", cwd=tree)
        cls.debs = {
            os.path.basename(path).split("_")[0]: path for path in glob.glob(cls.dir + "/*.deb")
        }
        cls.root = os.path.join(cls.dir, "root")
        for path in cls.debs.values():
            run("dpkg-deb", "-x", path, cls.root)
        (cls.libs,) = {os.path.dirname(p) for p in glob.glob(cls.root + "/usr/lib/*/libeqat.so.0")}
        cls.env = dict(os.environ, LD_LIBRARY_PATH=cls.libs)

    def test_lintian(self):
        (changes,) = glob.glob(self.dir + "/*.changes")
        run("lintian", "--fail-on", "error", "--allow-root", changes)

    def test_contents(self):
        wanted = {
            "libeqat0": ["libeqat.so.0."],
            "libeqat-dev": ["include/eqat/eqat.h", "libeqat.so", "libeqat.a", "eqat.pc", ".cmake"],
            "eqat": ["bin/eqat", "man1/eqat.1.gz", "bash-completion", "_eqat", "eqat.fish"],
            "python3-eqat": [
                "dist-packages/eqat/__init__.py",
                "bin/eqat-report",
                "man1/eqat-report.1.gz",
            ],
        }
        for name, parts in wanted.items():
            listing = run("dpkg-deb", "-c", self.debs[name])
            for part in parts:
                self.assertIn(part, listing, name)
        self.assertNotIn("libeqat.so ", run("dpkg-deb", "-c", self.debs["libeqat0"]))

    def test_tool(self):
        tool = os.path.join(self.root, "usr/bin/eqat")
        out = os.path.join(self.dir, "rounded")
        model = SOURCE / "tests" / "golden" / "llama"
        rtn = ["--method", "rtn", "--group-size", "32"]
        run(tool, "quantize", model, "--out", out, *rtn, env=self.env)
        self.assertIn("2.", run(tool, "inspect", out, env=self.env))

    def test_python(self):
        env = dict(self.env, PYTHONPATH=os.path.join(self.root, "usr/lib/python3/dist-packages"))
        code = "import eqat; print(eqat.__version__, eqat.__file__)"
        self.assertIn(self.root, run("/usr/bin/python3", "-c", code, env=env))

    def test_report(self):
        """eqat report finds the program of the Python package, whose page and manual it has."""
        bin = os.path.join(self.root, "usr/bin")
        modules = os.path.join(self.root, "usr/lib/python3/dist-packages")
        env = dict(self.env, PYTHONPATH=modules, PATH=f"{bin}:{os.environ['PATH']}")
        out, page = (os.path.join(self.dir, name) for name in ("reported", "page.html"))
        rtn = ["--method", "rtn", "--group-size", "32"]
        model = SOURCE / "tests" / "golden" / "llama"
        run("eqat", "quantize", model, "--out", out, *rtn, env=env)
        run("eqat", "report", out, "--out", page, env=env)
        with open(page, encoding="utf-8") as f:
            self.assertIn("</html>", f.read())
        helped = run("eqat-report", "--help", env=env)
        with open(SOURCE / "packaging/debian/eqat-report.1", encoding="utf-8") as f:
            manual = f.read().replace("\\-", "-")
        for flag in re.findall(r"--[a-z-]+", helped):
            self.assertTrue(flag == "--help" or flag in manual, flag)


if __name__ == "__main__":
    missing = [name for name in NEEDED if not shutil.which(name)]
    if not os.environ.get("EQAT_DEBIAN") or missing or not (SOURCE / ".git").exists():
        print("skipped: needs EQAT_DEBIAN=1, a git checkout and", ", ".join(NEEDED))
        sys.exit(77)
    unittest.main()
