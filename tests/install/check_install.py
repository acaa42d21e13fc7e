"""The installed tree, and libeqat as pkg-config tells of it, shared and static."""

import glob, os, re, shlex, subprocess, unittest

from installed import ONEDNN, SOURCE, Installed, need, run

CC = shlex.split(os.environ.get("CC", "cc"))
PRIVATE = {"-ljansson", "-lpcre2-8", "-lutf8proc", "-lm", "-pthread"}
PRIVATE |= {"-ldnnl"} if ONEDNN else set()


class Tree(Installed):
    def test_tool_finds_the_library_under_a_moved_prefix(self):
        self.use(self.prefix + "/bin/eqat")

    def test_documents(self):
        documents = self.prefix + "/share/doc/libeqat/"
        for name in ("README.md", "COPYING"):
            self.assertTrue(os.path.exists(documents + name), name)
        with open(documents + "README.md") as f:
            for link in re.findall(r"\]\(([^):]+)\)", f.read()):
                self.assertTrue(os.path.exists(documents + link), link)


class PkgConfig(Installed):
    def pkg_config(self, *options):
        """Sees eqat.pc alone: nothing of what libeqat was built with has to be installed."""
        where = dict(PKG_CONFIG_LIBDIR=self.libs + "/pkgconfig")
        prefix = "--define-variable=prefix=" + self.prefix
        return run("pkg-config", prefix, *options, "eqat", **where).split()

    def compiled(self, name, *flags):
        """The tool, which is written on the public interface alone."""
        sources = sorted(glob.glob(os.path.join(SOURCE, "examples", "eqat", "*.c")))
        run(*CC, "-D_GNU_SOURCE", "-o", f"{self.dir}/{name}", *sources, *flags)
        return f"{self.dir}/{name}"

    def test_flags(self):
        self.assertEqual(self.pkg_config("--cflags"), [f"-I{self.prefix}/include"])
        self.assertEqual(self.pkg_config("--static", "--cflags"), [f"-I{self.prefix}/include"])
        public = {f"-L{self.libs}", "-leqat"}
        self.assertEqual(set(self.pkg_config("--static", "--libs")), public | PRIVATE)
        self.assertEqual(
            set(self.pkg_config("--libs")), public if self.shared else public | PRIVATE
        )

    def test_shared(self):
        if not self.shared:
            self.skipTest("a static build")
        flags = self.pkg_config("--cflags", "--libs")
        program = self.compiled("shared", *flags, "-ljansson", "-lm")
        path = dict(LD_LIBRARY_PATH=self.libs)
        self.assertIn(self.libs + "/libeqat.so", run("ldd", program, **path))
        self.use(program, **path)

    def test_static(self):
        """libeqat.a holds everything of ours; without oneDNN the whole program can be static."""
        if not self.static:
            self.skipTest("a shared build")
        flags = self.pkg_config("--static", "--cflags", "--libs")
        flags = [f if f != "-leqat" else "-l:libeqat.a" for f in flags]
        program = self.compiled("static", *([] if ONEDNN else ["-static"]), *flags)
        self.use(program)
        linked = subprocess.run(["ldd", program], capture_output=True, text=True).stdout
        self.assertEqual("libdnnl" in linked, ONEDNN)
        self.assertNotIn("libeqat", linked)
        if not ONEDNN:
            self.assertNotIn("=>", linked)


if __name__ == "__main__":
    need("pkg-config")
    unittest.main()
