# SPDX-License-Identifier: GPL-2.0-or-later
"""Images of distribution kernels: small ones made by the tests, and one of Debian."""

from __future__ import annotations

import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from vmlinux_maker import (
    BANNER,
    BUILD_ID,
    LAYOUTS,
    PAGE,
    PER_CPU,
    RELEASE,
    TEXT,
    VERMAGIC,
    Kernel,
    Layout,
    Sec,
    Sym,
    bzimage,
    elf,
)

from klpfs.machine.btf import Types
from klpfs.machine.image import Export, Image, ImageError, Segment, Symbol, cache, distribution, orc
from klpfs.machine.image.payload import open_vmlinux

INIT = TEXT + 0x90000


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the cache directory of a test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "klpfs"


def load(directory: Path, kernel: Kernel) -> Image:
    path = directory / "vmlinuz"
    path.write_bytes(bzimage(kernel.vmlinux()))
    return distribution.load(path)


# -- what is in it --------------------------------------------------------------------------------


def test_release_vermagic_and_build_id(tmp_path: Path) -> None:
    image = load(tmp_path, Kernel())
    assert (image.release, image.vermagic, image.banner) == (RELEASE, VERMAGIC, BANNER)
    assert image.build_id == BUILD_ID.hex()
    assert image.btf == b"\x9f\xeb types"


@pytest.mark.parametrize("layout", LAYOUTS[:6], ids=[layout.name for layout in LAYOUTS[:6]])
def test_symbols(tmp_path: Path, layout: Layout) -> None:
    kernel = Kernel(layout=layout)
    image = load(tmp_path, kernel)
    assert image.symbols == [Symbol(s.name, s.addr, 0, s.kind) for s in kernel.symbols]


def test_exports(tmp_path: Path) -> None:
    kernel = Kernel()
    assert load(tmp_path, kernel).exports == {
        "_printk": Export(kernel.text["_printk"], False, 0x92997ED8, ""),
        "klp_enable_patch": Export(kernel.text["klp_enable_patch"], True, 0xFFFFFFFE, "KLP"),
    }


def test_exports_without_modversions(tmp_path: Path) -> None:
    exports = load(tmp_path, Kernel(crcs=False)).exports
    assert {name: export.crc for name, export in exports.items()} == {
        "_printk": None, "klp_enable_patch": None,
    }  # fmt: skip


def test_ftrace_sites_are_in_order_and_not_in_init_text(tmp_path: Path) -> None:
    image = load(tmp_path, Kernel())
    assert image.ftrace_sites == [TEXT, TEXT + 64, TEXT + 128]
    assert image.init == range(INIT, INIT + 0x4000)


def test_pages_have_the_rights_of_a_booted_kernel(tmp_path: Path) -> None:
    """No page is writable and executable. .rodata, which is writable in the file, is read-only."""
    image = load(tmp_path, Kernel())
    rights = {
        page: "w" * segment.writable + "x" * segment.executable
        for segment in image.segments
        for page in range(segment.vaddr, segment.vaddr + segment.memsz, PAGE)
    }
    assert rights[TEXT] == rights[TEXT + PAGE] == "x"
    assert rights[TEXT + 0x10000] == rights[TEXT + 0x50000] == ""
    assert rights[TEXT + 0x80000] == "w"
    assert rights[INIT] == "w"  # the first copy of the per-CPU variables
    assert rights[INIT + 0x1000] == "x"
    assert rights[INIT + 0x2000] == "w"
    assert rights[INIT + 0x4000] == rights[INIT + 0x5000] == "w"
    assert TEXT + 2 * PAGE not in rights
    assert INIT + 0x8000 not in rights  # behind _end


def test_what_is_in_the_pages(tmp_path: Path) -> None:
    image = load(tmp_path, Kernel())
    segments = {segment.vaddr: segment for segment in image.segments}
    assert segments[TEXT] == Segment(TEXT, b"\xcc" * 0x1010, 2 * PAGE, False, True)
    assert segments[INIT].data == PER_CPU == image.per_cpu
    assert segments[INIT + 0x1000].data == b"\x90" * 0x810
    assert segments[INIT + 0x2000].data.endswith(b"more")
    assert segments[INIT + 0x4000] == Segment(INIT + 0x4000, b"", 0x2000, True, False)  # .bss
    assert all(s.vaddr % PAGE == 0 and len(s.data) <= s.memsz for s in image.segments)


def test_a_vmlinux_as_it_comes_from_the_linker(tmp_path: Path) -> None:
    (tmp_path / "vmlinux").write_bytes(Kernel().vmlinux())
    image = distribution.load(tmp_path / "vmlinux")
    assert image == load(tmp_path, Kernel())


def test_a_kernel_without_orc_has_frame_pointers(tmp_path: Path) -> None:
    assert load(tmp_path, Kernel()).unwinder == "frame_pointer"
    with_orc = Kernel(more=[Sym("__start_orc_unwind", TEXT + 0x80010, "D")])
    assert load(tmp_path, with_orc).unwinder == "orc"


# -- what is none of this -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kernel", "reason"),
    [
        (Kernel(btf=None), "it has no type information (CONFIG_DEBUG_INFO_BTF)"),
        (
            Kernel(leave_out=frozenset({"klp_enable_patch"})),
            "it has no live patching (CONFIG_LIVEPATCH)",
        ),
        (Kernel(leave_out=frozenset({"vermagic"})), "it has no symbol vermagic"),
        (Kernel(leave_out=frozenset({"__stop_mcount_loc"})), "it has no symbol __stop_mcount_loc"),
        (Kernel(machine=183), "it is for arm64, not for x86-64"),
    ],
)
def test_one_clear_sentence(tmp_path: Path, kernel: Kernel, reason: str) -> None:
    with pytest.raises(ImageError) as caught:
        load(tmp_path, kernel)
    assert str(caught.value) == f"{tmp_path}/vmlinuz cannot be used as a kernel: {reason}"


def test_no_symbol_table(tmp_path: Path) -> None:
    damaged = Kernel().vmlinux().replace(b"0\x001\x002\x00", b"0\x001\x003\x00")
    (tmp_path / "vmlinuz").write_bytes(bzimage(damaged))
    with pytest.raises(ImageError, match="it has no symbol table"):
        distribution.load(tmp_path / "vmlinuz")


def test_a_program_of_user_space(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(elf([Sec(".rodata", 0x402000, b"hello")]))
    with pytest.raises(ImageError, match="it is an ELF file, but not a kernel"):
        distribution.load(program)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "none", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(ImageError, match=f"^{re.escape(str(path))} cannot be read: {reason}"):
            distribution.load(path)


WHOLE = Kernel().vmlinux()


@settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    changes=st.lists(
        st.tuples(st.integers(0, len(WHOLE) - 1), st.binary(min_size=1, max_size=9)), max_size=4
    ),
    shuffled=st.lists(st.integers(0, 15 * 64 - 1), max_size=4),
)
def test_damaged_kernels(
    tmp_path: Path, changes: list[tuple[int, bytes]], shuffled: list[int]
) -> None:
    """``shuffled`` are places in the section headers, which are at the end."""
    data = bytearray(WHOLE)
    for at, junk in [*changes, *((len(data) - 15 * 64 + at, b"\xff") for at in shuffled)]:
        data[at : at + len(junk)] = junk
    path = tmp_path / "vmlinux"
    path.write_bytes(data[: len(WHOLE)])
    try:
        image = distribution.load(path)
    except ImageError as error:
        assert str(error).startswith(str(path))
    else:
        assert sum(segment.memsz for segment in image.segments) < 1 << 30


# -- the cache ------------------------------------------------------------------------------------


def test_it_is_read_once(tmp_path: Path, kept: Path) -> None:
    path = tmp_path / "vmlinuz"
    path.write_bytes(bzimage(Kernel().vmlinux()))
    said: list[str] = []
    image = distribution.load(path, said.append)
    assert said == ["unpacking 0 MiB of xz", "reading symbols and exports"]
    assert distribution.load(path, said.append) == image
    assert len(said) == 2
    assert [file.name.split("-")[:2] for file in kept.iterdir()] == [
        ["distribution", BUILD_ID.hex()]
    ]


def test_another_file_is_another_image(tmp_path: Path, kept: Path) -> None:
    """This holds even if both have the same build id."""
    assert "new_function" not in load(tmp_path, Kernel()).exports
    functions = ["cmdline_proc_show", "klp_enable_patch", "_printk", "new_function"]
    changed = load(tmp_path, Kernel(functions=functions))
    assert changed.ftrace_sites[-1] == TEXT + 3 * 64
    assert len(list(kept.iterdir())) == 2


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    change=st.tuples(st.integers(0, 1 << 16), st.integers(1, 255)) | st.none(),
    cut=st.integers(0, 1 << 16),
)
def test_a_damaged_file_is_noticed_and_made_again(
    tmp_path: Path, kept: Path, change: tuple[int, int] | None, cut: int
) -> None:
    image = load(tmp_path, Kernel())
    (file,) = kept.iterdir()
    whole = file.read_bytes()
    data = bytearray(whole)
    if change:
        data[change[0] % len(data)] ^= change[1]
    file.write_bytes(data[: len(data) - cut % len(data)])
    assert load(tmp_path, Kernel()) == image
    assert file.read_bytes() == whole or cache.get(file.name.split("-")[2]) == image


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    said: list[str] = []
    path = tmp_path / "vmlinuz"
    path.write_bytes(bzimage(Kernel().vmlinux()))
    assert distribution.load(path, said.append).release == RELEASE
    assert said[-1] == "the kernel cannot be cached (Not a directory)"


def test_many_at_once(tmp_path: Path, kept: Path) -> None:
    path = tmp_path / "vmlinuz"
    path.write_bytes(bzimage(Kernel().vmlinux()))
    with ThreadPoolExecutor(4) as pool:
        images = list(pool.map(distribution.load, [path] * 8))
    assert all(image == images[0] for image in images)
    assert len(list(kept.iterdir())) == 1


# -- Debian's -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def vmlinuz() -> Path:
    """Return Debian's cloud kernel, the smallest one. It is downloaded once."""
    script = Path(__file__).parent.parent / "scripts/get-debian-kernel"
    done = subprocess.run([script, "cloud-amd64"], capture_output=True, text=True, timeout=150)
    if done.returncode:
        pytest.skip(f"no kernel of Debian's: {done.stderr.strip()}")
    return Path(done.stdout.strip())


@pytest.fixture(scope="module")
def debian(vmlinuz: Path, tmp_path_factory: pytest.TempPathFactory) -> Image:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        image = distribution.load(vmlinuz)
        assert distribution.load(vmlinuz) == image  # from the cache
    return image


def read(image: Image, address: int, size: int) -> bytes:
    for segment in image.segments:
        if segment.vaddr <= address < segment.vaddr + segment.memsz:
            at = address - segment.vaddr
            return segment.data[at : at + size].ljust(size, b"\0")
    raise AssertionError(f"{address:#x} is in no segment")


def addresses(image: Image) -> dict[str, int]:
    return {symbol.name: symbol.addr for symbol in reversed(image.symbols)}


def test_debian_is_what_its_file_name_says(debian: Image, vmlinuz: Path) -> None:
    assert debian.release == vmlinuz.name.removeprefix("vmlinuz-")
    assert debian.vermagic == f"{debian.release} SMP preempt mod_unload modversions "
    assert debian.banner.startswith(f"Linux version {debian.release} (debian-kernel@")
    assert re.fullmatch("[0-9a-f]{40}", debian.build_id)
    assert debian.unwinder == "orc"


def test_debian_symbols_and_exports_agree(debian: Image) -> None:
    """They are in different tables."""
    places = {(symbol.name, symbol.addr) for symbol in debian.symbols}
    assert len(debian.symbols) > 80_000
    assert len(debian.exports) > 9_000
    assert [name for name, e in debian.exports.items() if (name, e.addr) not in places] == []
    assert debian.exports["klp_enable_patch"].gpl_only
    assert not debian.exports["_printk"].gpl_only
    assert all(export.crc is not None for export in debian.exports.values())
    assert debian.exports["dma_buf_get"].namespace == "DMA_BUF"


def test_debian_ftrace_sites_call_fentry(debian: Image) -> None:
    """The other sites are nops, which the build writes."""
    at = addresses(debian)
    fentry, first = at["__fentry__"], set()
    for site in debian.ftrace_sites:
        code = read(debian, site, 5)
        assert code[0] == 0xE8
        first.add(site + 5 + int.from_bytes(code[1:], "little", signed=True))
    assert first == {fentry}
    assert len(set(debian.ftrace_sites)) == len(debian.ftrace_sites) > 30_000
    assert at["cmdline_proc_show"] in debian.ftrace_sites
    assert at["start_kernel"] not in debian.ftrace_sites


def test_debian_types_describe_its_livepatch(debian: Image) -> None:
    types = Types(debian.btf)
    names = [member.name for member in types["struct klp_func"].members]
    assert names[:3] == ["old_name", "new_func", "old_sympos"]
    assert types["struct module"].size % 64 == 0


def test_debian_per_cpu_variables_lie_in_their_template(debian: Image) -> None:
    at = addresses(debian)
    assert (at["__per_cpu_start"], at["__per_cpu_end"]) == (0, len(debian.per_cpu))
    assert 0 < at["current_task"] < len(debian.per_cpu)
    assert read(debian, at["__per_cpu_load"], len(debian.per_cpu)) == debian.per_cpu


def test_debian_unwinder(debian: Image) -> None:
    at = addresses(debian)
    tables = []
    for name in ("orc_unwind_ip", "orc_unwind"):
        start, end = at[f"__start_{name}"], at[f"__stop_{name}"]
        tables.append((start, read(debian, start, end - start)))
    table = orc.OrcTable(orc.Format(Types(debian.btf)), tables[0][1], *tables[0][:1], tables[1][1])
    assert len(table) > 300_000
    entry = table.find(at["cmdline_proc_show"])
    assert entry == orc.OrcEntry(orc.Kind.CALL, orc.Register.SP, 8)
    last = table.find(at["ret_from_fork"])
    assert last is not None and last.kind == orc.Kind.END_OF_STACK


@pytest.mark.parametrize("compression", ["zstd", "none"])
def test_debian_packed_otherwise(
    debian: Image, vmlinuz: Path, tmp_path: Path, compression: str
) -> None:
    """The same kernel, packed as by other distributions."""
    with vmlinuz.open("rb") as file:
        vmlinux = open_vmlinux(file).read()
    again = tmp_path / "vmlinuz"
    again.write_bytes(bzimage(vmlinux, compression))
    assert distribution.load(again) == debian
