"""Options: ours, the kernel's, those that are dropped, and everything else refused by name."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tmemfs import config
from tmemfs.config import (
    TABLES_PER_PAGE,
    MountConfig,
    SwapSpec,
    escape_option,
    parse_mount,
    split_options,
)
from tmemfs.errors import MountFailure, UsageError
from tmemfs.linux import system
from tmemfs.tmem.objects import NODE_OVERHEAD, NODE_PAGES


def asked(*options: str, as_root: bool = True, sloppy: bool = False) -> MountConfig:
    return parse_mount("/src", "/mnt", options, as_root=as_root, sloppy=sloppy)


# --- the defaults ----------------------------------------------------------------------------


def test_a_mount_without_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "physical_memory", lambda: 16 << 30)
    assert asked() == MountConfig(
        source="/src",
        mountpoint="/mnt",
        budget=1 << 30,
        page_size=config.DEFAULT_PAGE_SIZE,
        swaps=(),
        read_only=False,
        attr_timeout=1.0,
        entry_timeout=1.0,
        fuse_options=frozenset({"fsname=/src", "subtype=tmemfs", "rw", "allow_other"}),
        foreground=False,
        debug=False,
    )


def test_the_default_budget_is_a_quarter_of_a_small_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(system, "physical_memory", lambda: 2 << 30)
    assert asked().budget == 512 << 20


# --- our own keys ----------------------------------------------------------------------------


def test_our_own_keys() -> None:
    made = asked(
        "budget=64M", "page_size=4K", "swap=a=1M", "swap=b.c_d-e=64K", "attr_timeout=0.5",
        "entry_timeout=0",
    )  # fmt: skip
    assert (made.budget, made.page_size) == (64 << 20, 4096)
    assert made.swaps == (SwapSpec("a", 1 << 20), SwapSpec("b.c_d-e", 64 << 10))
    assert (made.attr_timeout, made.entry_timeout) == (0.5, 0.0)


def test_how_far_a_cache_is_believed() -> None:
    made = asked()
    assert (made.cache, made.writeback, made.readahead, made.trace) == (
        "open",
        False,
        4 << 20,
        None,
    )
    made = asked("cache=none", "readahead=0", "trace=/tmp/t")
    assert (made.cache, made.readahead, made.trace) == ("none", 0, "/tmp/t")
    assert (made.attr_timeout, made.entry_timeout) == (1.0, 1.0)
    made = asked("cache=always", "writeback", "entry_timeout=5")
    assert (made.cache, made.writeback) == ("always", True)
    assert (made.attr_timeout, made.entry_timeout) == (86400.0, 5.0)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["cache=sometimes"], "cache: 'sometimes' must be none, open or always"),
        (["cache=none", "writeback"], "with cache=none the kernel keeps nothing"),
        (["readahead=65M"], "readahead: must be at most 64M"),
        (["readahead=much"], "readahead: 'much' is not a size"),
        (["trace=here"], "trace: 'here' must be an absolute path"),
        (["writeback=yes"], "the option 'writeback' takes no value"),
        (["cache"], "the option 'cache' needs a value"),
    ],
)
def test_what_a_cache_cannot_be(options: list[str], told: str) -> None:
    with pytest.raises(UsageError, match=re.escape(told)):
        asked(*options)


def test_a_later_option_wins() -> None:
    made = asked("budget=1M", "ro", "noexec", "budget=2M", "exec", "rw")
    assert made.budget == 2 << 20
    assert not made.read_only
    assert made.fuse_options >= {"rw", "exec"}
    assert not made.fuse_options & {"ro", "noexec"}


def test_a_budget_may_be_a_share_of_the_memory() -> None:
    assert asked("budget=25%").budget == system.physical_memory() // 4


@pytest.mark.parametrize(
    ("option", "about"),
    [
        ("budget=x", "budget: 'x' is not a size"),
        ("budget=0", "budget: must be more than nothing"),
        ("budget", "'budget' needs a value"),
        ("budget=", "'budget' needs a value"),
        ("budget=7E", "more than the"),
        ("page_size=5K", "page_size: 5120 must be"),
        ("page_size=2K", "page_size: 2048 must be"),
        ("page_size=128K", "page_size: 131072 must be"),
        ("swap=a", "'a' must be NAME=SIZE"),
        ("swap=a=1X", "swap: unknown unit in the size '1X'"),
        ("swap=a/b=1M", "swap: 'a/b' cannot be a name"),
        ("swap=..=1M", "swap: '..' cannot be a name"),
        ("swap==1M", "swap: '' cannot be a name"),
        ("swap=cache=1M", "swap: 'cache' is what the pages of files are called"),
        ("swap=a=60K", "at least 64K"),
        ("swap=a=65537", "a multiple of 4096"),
        ("attr_timeout=soon", "attr_timeout: 'soon' is not a number"),
        ("attr_timeout=-1", "attr_timeout: must be a number of seconds, 0 or more"),
        ("entry_timeout=inf", "entry_timeout: must be"),
        ("entry_timeout=nan", "entry_timeout: must be"),
        ("ro=1", "'ro' takes no value"),
        ("fsname", "'fsname' needs a value"),
        ("subtype=other", "always 'tmemfs'"),
    ],
)
def test_what_cannot_be_is_named(option: str, about: str) -> None:
    for sloppy in (False, True):  # sloppiness is about unknown options only
        with pytest.raises(UsageError, match=re.escape(about)):
            asked(option, sloppy=sloppy)


def test_what_is_kept_in_reserve() -> None:
    assert asked("swap=a=1M").reserve is None
    assert asked("budget=64M", "reserve=16M", "swap=a=1M").reserve == 16 << 20
    assert asked("budget=64M", "reserve=0").reserve == 0
    with pytest.raises(UsageError, match="reserve: cannot be more than the budget"):
        asked("budget=64M", "reserve=65M")
    with pytest.raises(UsageError, match="reserve: 'much' is not a size"):
        asked("reserve=much")


def test_the_overflow_file_of_a_swap_volume() -> None:
    made = asked("overflow=b=/o=1", "swap=a=1M", "swap=b=1M")
    assert made.swaps == (SwapSpec("a", 1 << 20), SwapSpec("b", 1 << 20, "/o=1"))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["overflow=a"], "overflow: 'a' must be NAME=FILE"),
        (["overflow=a="], "overflow: 'a=' must be NAME=FILE"),
        (["overflow=swap1=/o", "swap=swap0=1M"], "volume 'swap1'; did you mean 'swap0'?"),
        (["overflow=a=o", "swap=a=1M"], "overflow: 'o' must be an absolute path"),
        (
            ["overflow=a=/o", "overflow=b=/o", "swap=a=1M", "swap=b=1M"],
            "overflow: '/o' is there twice; each volume needs its own",
        ),
    ],
)
def test_an_overflow_file_that_cannot_be(options: list[str], says: str) -> None:
    with pytest.raises(UsageError, match=re.escape(says)):
        asked(*options)


def test_two_swap_volumes_cannot_have_one_name() -> None:
    with pytest.raises(UsageError, match="'a' is there twice"):
        asked("swap=a=1M", "swap=a=2M")


def test_swap_needs_a_mount_that_can_be_written() -> None:
    with pytest.raises(UsageError, match="read-only"):
        asked("swap=a=1M", "ro")


@pytest.mark.parametrize(("source", "mountpoint"), [("src", "/mnt"), ("/src", "mnt")])
def test_paths_must_be_absolute(source: str, mountpoint: str) -> None:
    with pytest.raises(UsageError, match="must be an absolute path"):
        MountConfig(source, mountpoint, 1 << 20)


# --- options of others -----------------------------------------------------------------------


def test_what_the_kernel_knows_reaches_it() -> None:
    made = asked("ro", "dev", "suid", "noexec", "sync", "noatime", "auto_unmount")
    assert made.fuse_options >= {
        "ro", "dev", "suid", "noexec", "sync", "noatime", "auto_unmount",
    }  # fmt: skip
    assert made.read_only


def test_what_mount_and_systemd_know_is_dropped() -> None:
    words = "defaults auto noauto nofail _netdev user users owner group relatime nonempty"
    more = ("user=joe", "comment=x", "x-systemd.automount", "x-gvfs-name=A=B", "X-mount.mkdir")
    assert asked(*words.split(), *more) == asked()


def test_an_unknown_option_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match="unknown option 'budgte'; did you mean 'budget'") as e:
        asked("rw", "budgte=1G")
    assert e.value.exit_code == 2


def test_an_unknown_option_is_left_out_where_one_is_sloppy() -> None:
    assert asked("budgte=1G", "noexec", sloppy=True) == asked("noexec")


def test_a_remount_is_refused() -> None:
    with pytest.raises(MountFailure, match="unmount it and mount it again"):
        asked("ro", "remount", sloppy=True)


def test_others_may_use_a_mount_of_root_and_a_users_only_when_asked() -> None:
    assert "allow_other" in asked(as_root=True).fuse_options
    assert "allow_other" not in asked(as_root=False).fuse_options
    assert "allow_other" in asked("allow_other", as_root=False).fuse_options


def test_allow_root_takes_the_place_of_allow_other() -> None:
    options = asked("allow_root", as_root=True).fuse_options
    assert "allow_root" in options
    assert "allow_other" not in options


def test_a_restriction_overrides_what_was_asked_for() -> None:
    made = asked("suid", "dev", "exec").restricted(["nosuid", "nodev"])
    assert made.fuse_options >= {"nosuid", "nodev", "exec"}
    assert not made.fuse_options & {"suid", "dev"}


# --- commas, backslashes and what is not ASCII ------------------------------------------------


def test_a_list_is_split_at_commas_that_are_not_escaped() -> None:
    assert split_options("rw,,budget=1G,fsname=a\\,b\\\\c\\d,") == [
        "rw",
        "budget=1G",
        "fsname=a,b\\c\\d",
    ]


def test_an_fsname_of_ones_own_is_escaped_for_libfuse() -> None:
    options = asked(*split_options("fsname=a\\,b")).fuse_options
    assert "fsname=a\\,b" in options
    assert "fsname=/src" not in options


def test_a_source_that_libfuse_could_misread_is_escaped() -> None:
    made = parse_mount("/a,b\\c \n\u00e4", "/mnt", as_root=True)
    assert "fsname=/a\\,b\\\\c\\040\\012\\303\\244" in made.fuse_options


def libfuse_reads(option: str) -> bytes:
    """What process_option_group() in libfuse's fuse_opt.c makes of one option."""
    data, out, i = option.encode("ascii"), bytearray(), 0
    while i < len(data):
        if data[i : i + 1] == b"\\" and i + 1 < len(data):
            if re.match(rb"[0-3][0-7][0-7]", data[i + 1 : i + 4]):
                out.append(int(data[i + 1 : i + 4], 8))
                i += 4
                continue
            i += 1
        else:
            assert data[i : i + 1] != b",", "here libfuse begins the next option"
        out += data[i : i + 1]
        i += 1
    return bytes(out)


@given(st.binary().map(lambda raw: raw.decode("utf-8", "surrogateescape")))
def test_any_file_name_comes_through_libfuse(name: str) -> None:
    assert libfuse_reads(escape_option(name)) == name.encode("utf-8", "surrogateescape")


@given(st.lists(st.text(st.sampled_from("ab,\\="), min_size=1)))
def test_what_is_escaped_for_a_list_comes_back_from_it(values: list[str]) -> None:
    assert split_options(",".join(map(escape_option, values))) == values


def test_a_budget_too_small_for_the_tables_of_an_overflow() -> None:
    options = ["swap=s=64G", "overflow=s=/var/tmp/s"]
    with pytest.raises(UsageError, match="budget: 256M is too little for 64G of swap"):
        asked(*options, "budget=256M")
    made = asked(*options, "budget=512M")
    assert made.budget == 512 << 20
    # The same as the budget is changed later.
    config.check_budget(352 << 20, made.swaps)
    with pytest.raises(UsageError, match="budget: 351M is too little for 64G of swap"):
        config.check_budget(351 << 20, made.swaps)
    config.check_budget(1, asked("swap=s=64G").swaps)


def test_what_the_index_takes_for_a_page_is_what_it_says() -> None:
    per_page = 8 + (NODE_OVERHEAD + 8) / NODE_PAGES
    assert TABLES_PER_PAGE - 1 < per_page <= TABLES_PER_PAGE
