"""Sizes: what people may write, what is printed, and that the two agree."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tmemfs import units
from tmemfs.errors import UsageError
from tmemfs.linux.system import physical_memory
from tmemfs.units import format_size, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("4096", 4096),
        ("4096B", 4096),
        ("1k", 1 << 10),
        ("512M", 512 << 20),
        ("512m", 512 << 20),
        ("512MiB", 512 << 20),
        ("512mib", 512 << 20),
        ("1.5G", 3 << 29),
        ("2T", 2 << 40),
        ("1KB", 1000),
        ("1GB", 10**9),
        ("1.0001K", 1024),
        (" 64M\n", 64 << 20),
    ],
)
def test_a_size_in_any_spelling(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    [
        "",
        "M",
        "-1",
        "-1M",
        "1,5G",
        "1.G",
        "0x10",
        "1 G",
        "5Q",
        "5MM",
        "1e3",
        "٣",
        "1.5",
        "8E",
        "101%",
    ],
)
def test_what_is_no_size_is_named(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_size(text)
    assert repr(text) in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_percentage_is_of_the_whole_that_is_given() -> None:
    assert parse_size("25%", whole=1000) == 250
    assert parse_size("12.5%", whole=1000) == 125
    assert parse_size("100%", whole=1000) == 1000


def test_a_percentage_is_of_the_physical_memory_by_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(units, "usable_memory", lambda: 8 << 30)
    assert parse_size("25%") == 2 << 30


def test_the_physical_memory_is_what_the_kernel_says() -> None:
    with open("/proc/meminfo") as file:
        total = int(file.readline().split()[1]) * 1024
    assert physical_memory() == total


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0B"),
        (1023, "1023B"),
        (1024, "1K"),
        (1536, "1.5K"),
        (64 << 10, "64K"),
        (1 << 30, "1G"),
        (3 << 29, "1.5G"),
        ((1 << 20) - 1, "1M"),
        (10 * 1024 + 52, "10.1K"),
        (10 * 1024 + 51, "10K"),
        (5000 << 60, "5000E"),
    ],
)
def test_a_size_is_printed_as_util_linux_does(size: int, text: str) -> None:
    assert format_size(size) == text


@given(st.integers(min_value=0, max_value=2**62))
def test_what_is_printed_reads_back_to_one_part_in_twenty(size: int) -> None:
    printed = format_size(size)
    assert len(printed) <= 7
    assert abs(parse_size(printed) - size) <= size / 20
