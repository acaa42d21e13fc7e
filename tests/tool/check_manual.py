"""The manual page and the shells' completions, which the tool prints from the tables behind
--help: nothing is missing in them, the page has no fault in mdoc, and the shells complete."""

import os, re, shutil, subprocess, tempfile, unittest

TOOL = os.environ["EQAT_TOOL"]


def tool(*args):
    return subprocess.run([TOOL, *args], capture_output=True, text=True, check=True).stdout


COMMANDS = re.findall(r"^  (\w[\w-]*)", tool("--help"), re.M)


def flags(command):
    """{flag: its words, or what stands for its value, or None for a switch}"""
    return {
        flag: value or None
        for flag, value in re.findall(r"^  (--[\w-]+) ?(\S*)", tool(command, "--help"), re.M)
    }


INITS = ["descent", "gptq", "minmax", "mse", "wmse"]

class Manual(unittest.TestCase):
    page = tool("man")

    def test_every_flag_of_help(self):
        for command in COMMANDS:
            _, found, after = self.page.partition(f".Ss eqat {command}\n")
            self.assertTrue(found, command)
            section = re.split(r"^\.S[sh] ", after, maxsplit=1, flags=re.M)[0]
            told = set(re.findall(r"^\.It Fl -([\w-]+)", section, re.M))
            self.assertEqual({"--" + name for name in told}, set(flags(command)), command)

    def test_no_fault(self):
        if not shutil.which("mandoc"):
            self.skipTest("no mandoc")
        r = subprocess.run(
            ["mandoc", "-T", "lint", "-W", "warning"],
            input=self.page,
            capture_output=True,
            text=True,
        )
        self.assertEqual((r.returncode, r.stdout + r.stderr), (0, ""))

    def test_as_read(self):
        if not shutil.which("mandoc"):
            self.skipTest("no mandoc")
        text = subprocess.run(
            ["mandoc", "-T", "ascii"], input=self.page, capture_output=True, text=True, check=True
        ).stdout
        text = re.sub(r".\x08", "", text)
        self.assertRegex(text, r"--bits N\n +bits of a weight, 2 to 8 \(default 2\)")
        self.assertRegex(text, r"eqat quantize MODEL --out DIR \[--bits N\]")
        self.assertIn("eqat quantize SmolLM2-135M --out SmolLM2-w2g64", text)


class Folder(unittest.TestCase):
    """A folder with a model's folder and two files."""

    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="eqat-completion-")
        self.addCleanup(shutil.rmtree, self.dir)
        os.mkdir(os.path.join(self.dir, "model"))
        for name in ("my text.txt", "model.gguf"):
            open(os.path.join(self.dir, name), "w").close()


class Bash(Folder):
    """The function is called as readline calls it: a line's words, broken at =, too."""

    def complete(self, *words, breaks=True):
        if breaks:
            words = [part for w in words for part in re.split("(=)", w) if part or w == ""]
        script = """source <("$EQAT_TOOL" completion bash)
            COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
            _eqat 2>&1
            printf '%s\\n' "${COMPREPLY[@]}" """
        r = subprocess.run(
            ["bash", "-uc", script, "bash", "eqat", *words],
            cwd=self.dir,
            capture_output=True,
            text=True,
        )
        self.assertEqual((r.returncode, r.stderr), (0, ""))
        return sorted(filter(None, r.stdout.split("\n")))

    def test_commands(self):
        self.assertEqual(self.complete(""), sorted(COMMANDS + ["--help", "--version"]))
        self.assertEqual(self.complete("qu"), ["quantize"])

    def test_flags(self):
        for command in COMMANDS:
            self.assertEqual(self.complete(command, "--"), sorted(flags(command)), command)
        self.assertEqual(
            self.complete("quantize", "model", "--calib", "x", "--gr"), ["--group-size"]
        )

    def test_words(self):
        self.assertEqual(self.complete("quantize", "--init", ""), INITS)
        self.assertEqual(self.complete("quantize", "--init", "ms"), ["mse"])
        self.assertEqual(self.complete("quantize", "--shuffle", ""), ["off", "on"])
        self.assertEqual(self.complete("quantize", "--method", "b"), ["block-ap"])
        self.assertEqual(self.complete("quantize", "--bits", ""), [])
        self.assertEqual(self.complete("completion", ""), ["bash", "fish", "zsh"])
        self.assertEqual(self.complete("man", ""), [])

    def test_equals(self):
        self.assertEqual(self.complete("quantize", "--init="), INITS)
        self.assertEqual(self.complete("quantize", "--init=mi"), ["minmax"])
        whole = self.complete("quantize", "--init=mi", breaks=False)
        self.assertEqual(whole, ["--init=minmax"])
        self.assertEqual(self.complete("quantize", "--calib=my"), ["my text.txt"])

    def test_paths(self):
        self.assertEqual(self.complete("eval", "mod"), ["model", "model.gguf"])
        self.assertEqual(self.complete("quantize", "--out", ""), ["model"])
        self.assertEqual(self.complete("quantize", "--offload-dir", "m"), ["model"])
        everything = ["model", "model.gguf", "my text.txt"]
        self.assertEqual(self.complete("quantize", "--calib", ""), everything)
        self.assertEqual(self.complete("quantize", "--json", ""), everything)
        self.assertEqual(self.complete("nonsense", "--"), [])


class Fish(Folder):
    def complete(self, line):
        script = "eqat completion fish | source; complete -C $argv[1]"
        home = dict(HOME=self.dir, PATH=os.path.dirname(TOOL) + os.pathsep + os.environ["PATH"])
        r = subprocess.run(
            ["fish", "--no-config", "-c", script, line],
            cwd=self.dir,
            env=dict(os.environ, **home),
            capture_output=True,
            text=True,
        )
        self.assertEqual((r.returncode, r.stderr), (0, ""))
        return sorted(line.split("\t")[0] for line in r.stdout.split("\n") if line)

    def test_fish(self):
        if not shutil.which("fish"):
            self.skipTest("no fish")
        self.assertEqual(self.complete("eqat "), sorted(COMMANDS))
        self.assertEqual(self.complete("eqat --v"), ["--version"])
        self.assertEqual(self.complete("eqat quantize --"), sorted(flags("quantize")))
        self.assertEqual(self.complete("eqat quantize --init "), INITS)
        self.assertEqual(self.complete("eqat quantize --out m"), ["model/"])
        self.assertIn(
            "my text.txt", " ".join(self.complete("eqat eval --text my")).replace("\\", "")
        )


class Zsh(unittest.TestCase):
    def test_every_flag(self):
        script = tool("completion", "zsh")
        for command in COMMANDS:
            part = re.search(rf"^    {command}\)\n(.*?);;", script, re.M | re.S).group(1)
            told = set(re.findall(r"'(--[\w-]+)=?\[", part))
            self.assertEqual(told, set(flags(command)), command)

    def test_syntax(self):
        if not shutil.which("zsh"):
            self.skipTest("no zsh")
        script = tool("completion", "zsh")
        r = subprocess.run(["zsh", "-n"], input=script, capture_output=True, text=True)
        self.assertEqual((r.returncode, r.stderr), (0, ""))


if __name__ == "__main__":
    unittest.main()
