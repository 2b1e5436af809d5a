"""Names: looking up, making, linking, renaming, removing, listing."""

import ctypes
import os
import socket
import stat
from pathlib import Path

from posix_cases.runner import attempt, case, look, make, opened

from tmemfs.linux.syscalls import renameat2

NOREPLACE, EXCHANGE = 1, 2
HERE = -100  # AT_FDCWD


def rename(old: Path, new: Path, flags: int) -> object:
    return attempt(renameat2, HERE, os.fsencode(old), HERE, os.fsencode(new), flags)


# -- looking up -------------------------------------------------------------------------------


@case
def lookup_of_nothing(d: Path):
    return attempt(os.stat, d / "nothing")


@case
def lookup_below_nothing(d: Path):
    return attempt(os.stat, d / "nothing" / "below")


@case
def lookup_below_a_file(d: Path):
    return attempt(os.stat, make(d / "f") / "below")


@case
def lookup_after_somebody_made_it(d: Path):
    return attempt(os.stat, d / "f"), look(make(d / "f", b"x"))


@case
def file_with_a_slash_at_the_end(d: Path):
    make(d / "f")
    return attempt(os.stat, f"{d}/f/"), attempt(os.open, f"{d}/f/", os.O_RDONLY)


@case
def name_of_255_bytes(d: Path):
    name = "n" * 255
    make(d / name, b"long")
    return (d / name).read_bytes(), os.listdir(d) == [name]


@case
def name_of_256_bytes(d: Path):
    name = d / ("n" * 256)
    return (
        attempt(os.stat, name),
        attempt(os.open, name, os.O_CREAT | os.O_WRONLY),
        attempt(os.mkdir, name),
        attempt(os.symlink, "x", name),
        attempt(os.rename, make(d / "f"), name),
        attempt(os.link, d / "f", name),
        attempt(os.mkfifo, name),
    )


@case
def names_that_are_no_text(d: Path):
    for name in (b"\xff\xfe", b"new\nline", b" ", b"-rf", "é".encode(), b"\x01", b"a\\b"):
        os.close(os.open(os.path.join(os.fsencode(d), name), os.O_CREAT | os.O_WRONLY))
    return sorted(os.listdir(os.fsencode(d)))


@case
def path_too_long(d: Path):
    return attempt(os.stat, str(d) + "/x" * 2100)


@case
def loop_of_symbolic_links(d: Path):
    os.symlink("b", d / "a")
    os.symlink("a", d / "b")
    return attempt(os.stat, d / "a"), attempt(os.open, d / "a", os.O_RDONLY)


# -- making -----------------------------------------------------------------------------------


@case
def create_exclusively(d: Path):
    flags = os.O_CREAT | os.O_EXCL | os.O_RDWR
    first = opened(d / "f", flags, look, 0o640)
    return first, attempt(os.open, d / "f", flags)


@case
def create_exclusively_over_a_link_to_nothing(d: Path):
    os.symlink("nothing", d / "l")
    return attempt(os.open, d / "l", os.O_CREAT | os.O_EXCL | os.O_WRONLY), os.listdir(d)


@case
def create_through_a_link_to_nothing(d: Path):
    os.symlink("made", d / "l")
    make(d / "l", b"through")
    return sorted(os.listdir(d)), (d / "made").read_bytes()


@case
def create_over_what_is_there(d: Path):
    make(d / "f", b"old content")
    inode = os.stat(d / "f").st_ino
    opened(d / "f", os.O_CREAT | os.O_WRONLY, lambda fd: os.write(fd, b"new"), 0o600)
    return (d / "f").read_bytes(), os.stat(d / "f").st_ino == inode, look(d / "f")


@case
def create_over_a_directory(d: Path):
    os.mkdir(d / "sub")
    return attempt(os.open, d / "sub", os.O_CREAT | os.O_WRONLY)


@case
def create_for_reading_only_without_permission_to_write(d: Path):
    return opened(d / "f", os.O_CREAT | os.O_RDWR, lambda fd: os.write(fd, b"x"), 0o400), look(
        d / "f"
    )


@case
def create_in_a_removed_directory(d: Path):
    os.mkdir(d / "sub")

    def use(fd: int):
        os.rmdir(d / "sub")
        return attempt(os.open, "f", os.O_CREAT | os.O_WRONLY, dir_fd=fd), os.fstat(fd).st_nlink

    return opened(d / "sub", os.O_RDONLY, use)


@case
def mkdir_modes(d: Path):
    for mode in (0o755, 0o700, 0o1777, 0o500):
        os.mkdir(d / oct(mode), mode)
    return {name: look(d / name) for name in os.listdir(d)}


@case
def mkdir_over_each_kind(d: Path):
    make(d / "f")
    os.mkdir(d / "sub")
    os.symlink("nothing", d / "l")
    return [attempt(os.mkdir, d / name) for name in ("f", "sub", "l")]


@case
def mkdir_below_nothing_and_below_a_file(d: Path):
    make(d / "f")
    return attempt(os.mkdir, d / "no" / "sub"), attempt(os.mkdir, d / "f" / "sub")


@case
def directory_counts_its_subdirectories(d: Path):
    counts = [os.stat(d).st_nlink]
    for name in "abc":
        os.mkdir(d / name)
        counts.append(os.stat(d).st_nlink)
    os.rmdir(d / "a")
    os.rename(d / "b", d / "c" / "b")
    return counts, os.stat(d).st_nlink, os.stat(d / "c").st_nlink


@case
def umask_of_the_caller(d: Path):
    seen = []
    old = os.umask(0o027)
    try:
        for mask in (0o027, 0o077, 0):
            os.umask(mask)
            make(d / f"f{mask}")
            os.mkdir(d / f"d{mask}")
            os.mkfifo(d / f"p{mask}")
            seen += [look(d / f"{kind}{mask}")["mode"] for kind in "fdp"]
    finally:
        os.umask(old)
    return seen


@case
def mknod_of_each_kind(d: Path):
    os.mkfifo(d / "fifo", 0o640)
    os.mknod(d / "file", stat.S_IFREG | 0o600)
    os.mknod(d / "socket", stat.S_IFSOCK | 0o666)
    os.mknod(d / "char", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(d / "block", stat.S_IFBLK | 0o660, os.makedev(7, 200))
    return {name: look(d / name) for name in os.listdir(d)}


@case
def mknod_over_what_is_there(d: Path):
    make(d / "f")
    return attempt(os.mknod, d / "f", stat.S_IFREG | 0o600), attempt(os.mkfifo, d / "f")


@case
def mknod_of_a_directory(d: Path):
    return attempt(os.mknod, d / "x", stat.S_IFDIR | 0o755)


@case
def fifo_passes_bytes(d: Path):
    os.mkfifo(d / "fifo")
    reading = os.open(d / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    writing = os.open(d / "fifo", os.O_WRONLY)
    try:
        os.write(writing, b"through")
        return os.read(reading, 100)
    finally:
        os.close(reading)
        os.close(writing)


@case
def fifo_without_a_reader(d: Path):
    os.mkfifo(d / "fifo")
    return attempt(os.open, d / "fifo", os.O_WRONLY | os.O_NONBLOCK)


@case
def device_node_is_the_device(d: Path):
    os.mknod(d / "zero", stat.S_IFCHR | 0o666, os.makedev(1, 5))
    return opened(d / "zero", os.O_RDONLY, lambda fd: os.read(fd, 4))


@case
def socket_is_bound_and_reached(d: Path):
    # By a short name: the path of a socket has at most 107 bytes.
    here = os.open(".", os.O_RDONLY)
    os.chdir(d)
    try:
        with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
            server.bind("s")
            server.listen()
            client.connect("s")
            again = attempt(server.bind, "s")
        return look(d / "s"), again
    finally:
        os.fchdir(here)
        os.close(here)


# -- links ------------------------------------------------------------------------------------


@case
def symlink_is_read(d: Path):
    os.symlink("some/where", d / "l")
    return os.readlink(d / "l"), look(d / "l"), attempt(os.stat, d / "l")


@case
def symlink_of_any_target(d: Path):
    targets = [b"\xff\xfe", b"/", b"../..", b"t" * 4000, b"line\nend"]
    for number, target in enumerate(targets):
        os.symlink(target, os.fsencode(d / f"l{number}"))
    return [os.readlink(os.fsencode(d / f"l{i}")) == t for i, t in enumerate(targets)]


@case
def symlink_target_empty_or_too_long(d: Path):
    return attempt(os.symlink, "", d / "a"), attempt(os.symlink, "t" * 5000, d / "b")


@case
def symlink_over_what_is_there(d: Path):
    return attempt(os.symlink, "x", make(d / "f"))


@case
def symlink_is_followed_and_not_followed(d: Path):
    make(d / "f", b"target")
    os.symlink("f", d / "l")
    return (
        (d / "l").read_bytes(),
        attempt(os.open, d / "l", os.O_RDONLY | os.O_NOFOLLOW),
        os.stat(d / "l").st_ino == os.stat(d / "f").st_ino,
    )


@case
def symlink_out_of_the_directory(d: Path):
    os.symlink("/dev/null", d / "out")
    return attempt((d / "out").read_bytes)


@case
def readlink_of_a_file(d: Path):
    return attempt(os.readlink, make(d / "f")), attempt(os.readlink, d)


@case
def link_is_the_same_file(d: Path):
    make(d / "a", b"one")
    os.link(d / "a", d / "b")
    make(d / "b", b"two, longer")
    same = os.stat(d / "a").st_ino == os.stat(d / "b").st_ino
    os.unlink(d / "a")
    return same, look(d / "b"), (d / "b").read_bytes()


@case
def link_over_what_is_there(d: Path):
    return attempt(os.link, make(d / "a"), make(d / "b")), attempt(os.link, d / "a", d / "a")


@case
def link_of_a_directory(d: Path):
    os.mkdir(d / "sub")
    return attempt(os.link, d / "sub", d / "other")


@case
def link_of_nothing(d: Path):
    return attempt(os.link, d / "nothing", d / "other")


@case
def link_of_a_symlink_and_through_it(d: Path):
    make(d / "f", b"target")
    os.symlink("f", d / "l")
    os.link(d / "l", d / "same", follow_symlinks=False)
    os.link(d / "l", d / "through", follow_symlinks=True)
    return look(d / "same"), look(d / "through"), os.readlink(d / "same")


@case
def link_of_a_fifo_into_another_directory(d: Path):
    os.mkdir(d / "sub")
    os.mkfifo(d / "p")
    os.link(d / "p", d / "sub" / "p")
    return look(d / "p"), look(d / "sub" / "p")


@case
def link_to_an_unlinked_open_file(d: Path):
    def use(fd: int):
        os.unlink(d / "f")
        return attempt(os.link, f"/proc/self/fd/{fd}", d / "g", follow_symlinks=True)

    make(d / "f")
    return opened(d / "f", os.O_RDONLY, use)


# -- removing ---------------------------------------------------------------------------------


@case
def unlink_each_kind(d: Path):
    make(d / "f")
    os.mkdir(d / "sub")
    os.symlink("f", d / "l")
    os.mkfifo(d / "p")
    return [attempt(os.unlink, d / name) for name in ("f", "sub", "l", "p", "none")], os.listdir(d)


@case
def rmdir_each_kind(d: Path):
    make(d / "f")
    os.mkdir(d / "empty")
    os.mkdir(d / "full")
    make(d / "full" / "f")
    os.symlink("empty", d / "l")
    names = ("f", "empty", "full", "l", "none")
    return [attempt(os.rmdir, d / name) for name in names], sorted(os.listdir(d))


@case
def rmdir_of_dots(d: Path):
    os.mkdir(d / "sub")
    return attempt(os.rmdir, f"{d}/sub/."), attempt(os.rmdir, f"{d}/sub/..")


@case
def removed_directory_that_is_open(d: Path):
    os.mkdir(d / "sub")

    def use(fd: int):
        os.rmdir(d / "sub")
        return os.listdir(fd), attempt(os.stat, "..", dir_fd=fd) is not None

    return opened(d / "sub", os.O_RDONLY, use)


@case
def unlinked_file_goes_on_working(d: Path):
    make(d / "f", b"before")

    def use(fd: int):
        os.unlink(d / "f")
        os.pwrite(fd, b"and after", 6)
        os.ftruncate(fd, 12)
        os.fchmod(fd, 0o600)
        os.fsync(fd)
        return os.pread(fd, 100, 0), look(fd), os.listdir(d)

    return opened(d / "f", os.O_RDWR, use)


@case
def name_is_made_again_while_the_old_file_is_open(d: Path):
    make(d / "f", b"old")

    def use(fd: int):
        os.unlink(d / "f")
        make(d / "f", b"new file")
        return os.pread(fd, 100, 0), (d / "f").read_bytes(), os.fstat(fd).st_nlink

    return opened(d / "f", os.O_RDWR, use)


# -- renaming ---------------------------------------------------------------------------------


@case
def rename_keeps_the_file(d: Path):
    make(d / "a", b"content")
    inode = os.stat(d / "a").st_ino
    os.rename(d / "a", d / "b")
    return os.stat(d / "b").st_ino == inode, (d / "b").read_bytes(), os.listdir(d)


@case
def rename_of_nothing(d: Path):
    return attempt(os.rename, d / "nothing", d / "b")


@case
def rename_over_a_file(d: Path):
    make(d / "a", b"new")
    make(d / "b", b"old")
    os.rename(d / "a", d / "b")
    return (d / "b").read_bytes(), os.listdir(d)


@case
def rename_over_an_open_file(d: Path):
    make(d / "a", b"new")
    make(d / "b", b"old")

    def use(fd: int):
        os.rename(d / "a", d / "b")
        return os.pread(fd, 10, 0), os.fstat(fd).st_nlink, (d / "b").read_bytes()

    return opened(d / "b", os.O_RDWR, use)


@case
def rename_of_an_open_file(d: Path):
    make(d / "a", b"text")

    def use(fd: int):
        os.rename(d / "a", d / "b")
        os.write(fd, b"TEX")
        return (d / "b").read_bytes(), look(fd)

    return opened(d / "a", os.O_RDWR, use)


@case
def rename_across_kinds(d: Path):
    for name in ("da", "db", "full"):
        os.mkdir(d / name)
    make(d / "full" / "x")
    make(d / "f")
    return (
        attempt(os.rename, d / "f", d / "da"),
        attempt(os.rename, d / "da", d / "f"),
        attempt(os.rename, d / "da", d / "full"),
        attempt(os.rename, d / "da", d / "db"),
        sorted(os.listdir(d)),
    )


@case
def rename_to_another_name_of_the_same_file(d: Path):
    make(d / "a", b"x")
    os.link(d / "a", d / "b")
    os.rename(d / "a", d / "b")
    return sorted(os.listdir(d)), look(d / "b")


@case
def rename_to_itself(d: Path):
    make(d / "a", b"x")
    os.rename(d / "a", d / "a")
    return (d / "a").read_bytes()


@case
def rename_into_itself(d: Path):
    os.makedirs(d / "a" / "b")
    return attempt(os.rename, d / "a", d / "a" / "b" / "c"), attempt(
        os.rename, d / "a" / "b", d / "a"
    )


@case
def rename_of_dots(d: Path):
    os.mkdir(d / "a")
    return attempt(os.rename, f"{d}/a/.", d / "b"), attempt(os.rename, d / "a", f"{d}/a/..")


@case
def rename_of_a_directory_with_open_files_below(d: Path):
    os.makedirs(d / "a" / "b")
    make(d / "a" / "b" / "f", b"text")

    def use(fd: int):
        os.rename(d / "a", d / "z")
        os.write(fd, b"T")
        make(d / "z" / "b" / "g", b"more")
        return (d / "z" / "b" / "f").read_bytes(), sorted(os.listdir(d / "z" / "b"))

    return opened(d / "a" / "b" / "f", os.O_RDWR, use)


@case
def rename_moves_dotdot(d: Path):
    os.makedirs(d / "a" / "sub")
    os.mkdir(d / "b")
    os.rename(d / "a" / "sub", d / "b" / "sub")
    return os.stat(d / "b" / "sub" / "..").st_ino == os.stat(d / "b").st_ino


@case
def rename_of_a_symlink(d: Path):
    make(d / "f")
    os.symlink("f", d / "l")
    os.rename(d / "l", d / "f")
    return os.readlink(d / "f"), os.listdir(d)


@case
def rename_with_a_slash_at_the_end(d: Path):
    make(d / "f")
    os.mkdir(d / "sub")
    return (
        attempt(os.rename, f"{d}/f/", d / "g"),
        attempt(os.rename, d / "f", f"{d}/g/"),
        attempt(os.rename, f"{d}/sub/", f"{d}/other/"),
        sorted(os.listdir(d)),
    )


@case
def rename_noreplace(d: Path):
    make(d / "a", b"a")
    make(d / "b", b"b")
    return (
        rename(d / "a", d / "b", NOREPLACE),
        rename(d / "a", d / "c", NOREPLACE),
        rename(d / "none", d / "e", NOREPLACE),
        sorted(os.listdir(d)),
        (d / "b").read_bytes(),
    )


@case
def rename_exchange_of_files(d: Path):
    make(d / "a", b"was a")
    make(d / "b", b"was b")
    done = rename(d / "a", d / "b", EXCHANGE)
    return done, (d / "a").read_bytes(), (d / "b").read_bytes()


@case
def rename_exchange_of_a_file_and_a_full_directory(d: Path):
    make(d / "a", b"was a")
    os.mkdir(d / "b")
    make(d / "b" / "in", b"inside")
    done = rename(d / "a", d / "b", EXCHANGE)
    os.rename(d / "a" / "in", d / "a" / "out")
    return done, (d / "b").read_bytes(), (d / "a" / "out").read_bytes()


@case
def rename_exchange_with_nothing(d: Path):
    return rename(make(d / "a"), d / "none", EXCHANGE), os.listdir(d)


@case
def rename_with_impossible_flags(d: Path):
    make(d / "a")
    make(d / "b")
    return rename(d / "a", d / "b", NOREPLACE | EXCHANGE), rename(d / "a", d / "b", 1 << 10)


@case
def rename_across_directories_and_back(d: Path):
    os.mkdir(d / "a")
    os.mkdir(d / "b")
    make(d / "a" / "f", b"x")
    os.rename(d / "a" / "f", d / "b" / "g")
    seen = os.listdir(d / "a"), os.listdir(d / "b")
    os.rename(d / "b" / "g", d / "a" / "f")
    return seen, (d / "a" / "f").read_bytes()


@case
def links_and_renames_to_another_filesystem(d: Path):
    import tempfile

    make(d / "f", b"x")
    os.mkdir(d / "sub")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as other:
        elsewhere = Path(other)
        make(elsewhere / "g")
        return (
            attempt(os.link, d / "f", elsewhere / "f"),
            attempt(os.link, elsewhere / "g", d / "g"),
            [attempt(os.rename, d / name, elsewhere / name) for name in ("f", "sub", "none")],
            attempt(os.rename, elsewhere / "g", d / "g"),
            attempt(os.rename, d / "f", elsewhere / "g"),
            sorted(os.listdir(d)),
        )


# -- listing ----------------------------------------------------------------------------------


@case
def listing_has_every_name_once(d: Path):
    for number in range(1000):
        os.mknod(d / f"file {number}")
    return sorted(os.listdir(d)) == sorted(f"file {number}" for number in range(1000))


@case
def listing_knows_the_kinds(d: Path):
    make(d / "f")
    os.mkdir(d / "sub")
    os.symlink("f", d / "l")
    os.mkfifo(d / "p")
    with os.scandir(d) as entries:
        return sorted(
            (e.name, e.is_file(follow_symlinks=False), e.is_dir(follow_symlinks=False))
            for e in entries
        )


@case
def listing_has_the_inode_numbers_of_stat(d: Path):
    make(d / "f")
    os.mkdir(d / "sub")
    with os.scandir(d) as entries:
        return [entry.inode() == os.lstat(entry.path).st_ino for entry in entries]


@case
def listing_of_a_file(d: Path):
    return attempt(os.listdir, make(d / "f")), attempt(
        os.open, d / "f", os.O_RDONLY | os.O_DIRECTORY
    )


@case
def removing_while_listing(d: Path):
    for number in range(500):
        os.mknod(d / str(number))
    with os.scandir(d) as entries:
        for entry in entries:
            os.unlink(entry.path)
    return os.listdir(d)


class Dirent(ctypes.Structure):
    _fields_ = (
        ("d_ino", ctypes.c_uint64),
        ("d_off", ctypes.c_int64),
        ("d_reclen", ctypes.c_ushort),
        ("d_type", ctypes.c_ubyte),
        ("d_name", ctypes.c_char * 256),
    )


_libc = ctypes.CDLL(None, use_errno=True)
_libc.opendir.restype = _libc.readdir.restype = ctypes.c_void_p
_libc.telldir.restype = ctypes.c_long
_libc.readdir.argtypes = _libc.closedir.argtypes = (ctypes.c_void_p,)
_libc.telldir.argtypes = _libc.rewinddir.argtypes = (ctypes.c_void_p,)
_libc.seekdir.argtypes = (ctypes.c_void_p, ctypes.c_long)


class Stream:
    """A directory stream of the C library, for what Python does not have: places in it."""

    def __init__(self, path: Path) -> None:
        self._stream = _libc.opendir(os.fsencode(path))

    def next(self) -> bytes | None:
        entry = _libc.readdir(self._stream)
        return ctypes.cast(entry, ctypes.POINTER(Dirent)).contents.d_name if entry else None

    def rest(self) -> list[bytes]:
        return list(iter(self.next, None))

    def tell(self) -> int:
        return int(_libc.telldir(self._stream))

    def seek(self, place: int) -> None:
        _libc.seekdir(self._stream, place)

    def rewind(self) -> None:
        _libc.rewinddir(self._stream)

    def close(self) -> None:
        _libc.closedir(self._stream)


@case
def places_in_a_listing_hold(d: Path):
    for number in range(300):
        os.mknod(d / str(number))
    stream = Stream(d)
    before = [stream.next() for _ in range(100)]
    place = stream.tell()
    rest = stream.rest()
    stream.seek(place)
    again = stream.rest()
    stream.close()
    return rest == again, len(before) + len(rest), set(before) & set(rest)


@case
def places_in_a_listing_hold_while_names_go(d: Path):
    for number in range(300):
        os.mknod(d / str(number))
    stream = Stream(d)
    before = [stream.next() for _ in range(100)]
    place = stream.tell()
    rest = stream.rest()
    gone = {name for name in before + rest[::2] if name not in (None, b".", b"..")}
    for name in gone:
        os.unlink(os.path.join(os.fsencode(d), name))
    stream.seek(place)
    again = stream.rest()
    stream.close()
    # What was there all the time must come, and once; what went may come or not.
    return [name for name in again if name not in gone] == [n for n in rest if n not in gone]


@case
def rewound_listing_is_a_new_one(d: Path):
    make(d / "old")
    stream = Stream(d)
    first = sorted(stream.rest())
    make(d / "new")
    os.unlink(d / "old")
    stream.rewind()
    second = sorted(stream.rest())
    stream.close()
    return first, second


@case
def names_of_every_length(d: Path):
    lengths = (1, 2, 15, 16, 127, 128, 253, 254, 255)
    for length in lengths:
        os.mkdir(d / ("n" * length))
        make(d / ("n" * length) / ("m" * length), b"x")
        os.symlink("t" * length, d / ("l" * length))
    moved = attempt(os.rename, d / ("n" * 255), d / ("o" * 255))
    return moved, sorted(os.listdir(d)), [len(os.readlink(d / ("l" * n))) for n in lengths]


@case
def path_of_the_greatest_length(d: Path):
    here = os.open(".", os.O_RDONLY)
    try:
        os.chdir(d)
        for _ in range(20):
            os.mkdir("s" * 255)
            os.chdir("s" * 255)
        make(Path("f"), b"deep")
        os.chdir(d)
        steps = "/".join(["s" * 255] * 15)
        return [attempt(os.stat, steps + "/" * n + "s" * (255 - n)) != "" for n in (0,)] + [
            attempt(lambda n=n: oct(os.stat(steps + "/" * n).st_mode)) for n in (1, 256, 257)
        ]
    finally:
        os.fchdir(here)
        os.close(here)


@case
def listing_goes_on_while_names_come(d: Path):
    for number in range(200):
        os.mknod(d / f"old {number}")
    stream = Stream(d)
    seen = [stream.next() for _ in range(50)]
    for number in range(200):
        os.mknod(d / f"new {number}")
    seen += stream.rest()
    stream.close()
    # What was there all the time must come, and once; what came meanwhile may, but not twice.
    old = [name for name in seen if name and name.startswith(b"old")]
    return len(old), len(set(seen)) == len(seen)


@case
def listing_goes_on_while_names_are_renamed(d: Path):
    for number in range(300):
        os.mknod(d / str(number))
    stream = Stream(d)
    seen = [stream.next() for _ in range(20)]
    for number in range(0, 300, 3):
        os.rename(d / str(number), d / f"renamed {number}")
    seen += stream.rest()
    stream.close()
    kept = [name for name in seen if name and name.isdigit() and int(name) % 3]
    return len(kept), len(set(kept)), len(os.listdir(d))


@case
def dots_are_listed(d: Path):
    stream = Stream(d)
    names = sorted(stream.rest())
    stream.close()
    return names


@case
def statfs_of_the_directory(d: Path):
    figures = os.statvfs(d)
    return (
        figures.f_frsize,
        figures.f_blocks,
        figures.f_files,
        figures.f_namemax,
    )


@case
def deep_directories(d: Path):
    place = d
    for _ in range(60):
        place /= "deeper"
        os.mkdir(place)
    make(place / "f", b"bottom")
    found = (place / "f").read_bytes()
    return found, sum(len(files) for _, _, files in os.walk(d))
