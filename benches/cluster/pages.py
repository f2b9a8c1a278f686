"""The machine's page cache: full before a system is measured, or empty.

A virtual machine may give memory that it does not use back to its host. Then the first write to each page costs a fault of
the host, several times the copy, until memory has been used once: the same load is half as fast minutes after the machine
had nothing to do. A broker that has run for a day has a full page cache; so has whatever is measured here.
"""

import os
import pathlib

# What programs need besides.
SPARE_BYTES = 2 << 30
READ_BYTES = 4 << 20


def fill(folder):
    """Has the kernel hold pages of a file of holes, as many as there is memory for. The file takes no room on the disk."""
    path = pathlib.Path(folder) / "page-cache"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with open(path, "ab+", buffering=0) as file:
        file.truncate(max(0, memory - SPARE_BYTES))
        into = bytearray(READ_BYTES)
        file.seek(0)
        while file.readinto(into):
            pass


def forget_all():
    """Empties the machine's page cache of what is on disk; says whether that is allowed here."""
    os.sync()
    try:
        pathlib.Path("/proc/sys/vm/drop_caches").write_text("1")
    except OSError:
        return False
    return True
