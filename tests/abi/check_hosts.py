"""Programs of other times and with other libraries: check_hosts.py LIBRARY OLD_HOST."""

import os, shutil, subprocess, sys, tempfile

library, old_host = sys.argv[1:3]
with tempfile.TemporaryDirectory() as folder:
    copy = os.path.join(folder, "libeqat-other.so")
    shutil.copy(library, copy)
    sys.exit(subprocess.run([old_host, library, copy]).returncode)
