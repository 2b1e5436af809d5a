"""The tmem core as a library: memory of a fixed budget for pages that you name.

python examples/core_library.py
"""

import os
import sysconfig
from pathlib import Path

from tmemfs.tmem import Core, Pool

PAGE = 4096


def main() -> None:
    core = Core(4 << 20)  # bytes, tables included
    client = core.new_client("example")
    cache = client.new_pool("sources", kind="ephemeral")  # pages may go at any time
    notes = client.new_pool("notes", kind="persistent")  # pages stay until they are flushed

    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    contents = [file.read_bytes() for file in files]
    for number, data in enumerate(contents):
        cache.put_many(number, 0, data.ljust(-(-len(data) // PAGE) * PAGE, b"\0"))
    show("sources read", core, cache, contents)

    kept = os.urandom(2 << 20)  # what does not compress takes its own size
    assert notes.put_many(0, 0, kept) == len(kept) // PAGE
    show("notes taken", core, cache, contents)
    assert b"".join(page or b"" for page in notes.get_many(0, 0, len(kept) // PAGE)) == kept


def show(what: str, core: Core, cache: Pool, contents: list[bytes]) -> None:
    hits = total = 0
    for number, data in enumerate(contents):
        for index in range(-(-len(data) // PAGE)):
            page = cache.get(number, index)  # the page as it was put, or None
            assert page is None or page.startswith(data[index * PAGE : (index + 1) * PAGE])
            hits, total = hits + (page is not None), total + 1
    memory = core.statistics()["memory"]
    used, stored = memory["mem_used_total"] >> 10, memory["orig_data_size"] >> 10
    print(f"{what}: {hits} of {total} source pages are there; {stored} KiB in {used} KiB of memory")


if __name__ == "__main__":
    main()
