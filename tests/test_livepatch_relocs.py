# SPDX-License-Identifier: GPL-2.0-or-later
"""Livepatch relocations: Documentation/livepatch/module-elf-format.rst.

A patch uses symbols that are not exported, of vmlinux and of modules that are loaded later.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypedDict

import pytest
from klp_guest import Guest, booted, patch_source

Ko = Callable[..., Path]
TARGET = "klp_target"

SHT_RELA, SHT_SYMTAB = 4, 2
SHF_ALLOC, SHF_INFO_LINK, SHF_RELA_LIVEPATCH = 0x2, 0x40, 0x00100000
SHN_LIVEPATCH = 0xFF20
GLOBAL = 1 << 4
_EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
_SHDR = struct.Struct("<IIQQQQIIQQ")
_SYM = struct.Struct("<IBBHQQ")
_RELA = struct.Struct("<QQq")


@dataclass(frozen=True)
class _Section:
    name: str
    type: int
    flags: int
    size: int
    link: int
    info: int
    align: int
    entsize: int
    data: bytes


class Elf:
    """A relocatable file to modify."""

    def __init__(self, data: bytes) -> None:
        self._header = _EHDR.unpack_from(data)
        offset, count, names_at = self._header[6], self._header[12], self._header[13]
        headers = [_SHDR.unpack_from(data, offset + i * _SHDR.size) for i in range(count)]
        strings = data[headers[names_at][4] :]
        self.sections = [
            _Section(
                strings[name : strings.index(b"\0", name)].decode(),
                type_, flags, size, link, info, align, entsize,
                data[at : at + size] if type_ != 8 else b"",  # SHT_NOBITS
            )
            for name, type_, flags, _, at, size, link, info, align, entsize in headers
        ]  # fmt: skip
        self._names_at = names_at
        self._symtab = next(i for i, s in enumerate(self.sections) if s.type == SHT_SYMTAB)
        self._strtab = self.sections[self._symtab].link

    def _append(self, index: int, more: bytes) -> int:
        """Append data to a section; return its offset."""
        section = self.sections[index]
        data = section.data + more
        self.sections[index] = replace(section, data=data, size=len(data))
        return len(section.data)

    def _symbols(self) -> list[tuple[int, ...]]:
        return list(_SYM.iter_unpack(self.sections[self._symtab].data))

    def _name(self, offset: int) -> str:
        strings = self.sections[self._strtab].data
        return strings[offset : strings.index(b"\0", offset)].decode()

    def mark(self, symbol: str, name: str, shndx: int = SHN_LIVEPATCH) -> int:
        """Turn an imported symbol into the livepatch symbol ``name``; return its index."""
        symbols = self._symbols()
        index = next(i for i, s in enumerate(symbols) if self._name(s[0]) == symbol)
        symbols[index] = (self._append(self._strtab, name.encode() + b"\0"), GLOBAL, 0, shndx, 0, 0)
        data = b"".join(_SYM.pack(*s) for s in symbols)
        self.sections[self._symtab] = replace(self.sections[self._symtab], data=data)
        return index

    def split(self, name: str, of: str, symbols: Iterable[int]) -> None:
        """Move the relocations of these symbols from ``.rela<of>`` to a livepatch section."""
        at = next(i for i, s in enumerate(self.sections) if s.name == f".rela{of}")
        old = self.sections[at]
        kept: list[bytes] = []
        moved: list[bytes] = []
        for entry in _RELA.iter_unpack(old.data):
            (moved if entry[1] >> 32 in set(symbols) else kept).append(_RELA.pack(*entry))
        assert moved
        data = b"".join(kept)
        self.sections[at] = replace(old, data=data, size=len(data))
        data = b"".join(moved)
        flags = SHF_ALLOC | SHF_INFO_LINK | SHF_RELA_LIVEPATCH
        self.sections.append(
            replace(old, name=name, flags=flags, data=data, size=len(data))
        )  # fmt: skip

    def bytes(self) -> bytes:
        """Return the content of the file."""
        names = bytearray(b"\0")
        offsets = []
        for section in self.sections:
            offsets.append(len(names))
            names += section.name.encode() + b"\0"
        old = self.sections[self._names_at]
        self.sections[self._names_at] = replace(old, data=bytes(names), size=len(names))
        out = bytearray(_EHDR.size)
        headers = bytearray()
        for section, name in zip(self.sections, offsets, strict=True):
            out += bytes(-len(out) % max(section.align, 1))
            headers += _SHDR.pack(
                name, section.type, section.flags, 0, len(out) if section.type else 0,
                section.size, section.link, section.info, section.align, section.entsize,
            )  # fmt: skip
            out += section.data
        out += bytes(-len(out) % 8)
        header = list(self._header)
        header[6], header[12] = len(out), len(self.sections)
        out[: _EHDR.size] = _EHDR.pack(*header)
        return bytes(out + headers)


HEAD = """extern int one(void) __attribute__((weak));
extern int klp_target_state __attribute__((weak));
noinline int state(void);
noinline int state(void) { return klp_target_state; }
"""
SOURCE = patch_source({TARGET: {"two": "return 100 + one();"}}, head=HEAD)
ONE, STATE = f".klp.sym.{TARGET}.one,1", ".klp.sym.vmlinux.klp_target_state,0"
SECTION = ".klp.rela.{}..text"


@pytest.fixture
async def guest() -> AsyncIterator[Guest]:
    async with booted() as guest:
        yield guest
        guest.check()


class Changes(TypedDict, total=False):
    """Arguments of `patch` that differ from the defaults."""

    one: str
    state: str
    one_section: str
    state_section: str
    shndx: int


def patch(
    ko: Ko,
    one: str = ONE,
    state: str = STATE,
    *,
    one_section: str = SECTION.format(TARGET),
    state_section: str = SECTION.format("vmlinux"),
    shndx: int = SHN_LIVEPATCH,
) -> bytes:
    """Build a patch whose function calls one() of klp_target and reads a variable of vmlinux."""
    elf = Elf(ko("klp_relocs", SOURCE).read_bytes())
    elf.split(state_section, ".text", [elf.mark("klp_target_state", state)])
    elf.split(one_section, ".text", [elf.mark("one", one, shndx)])
    return elf.bytes()


async def state(guest: Guest) -> int:
    return await guest.call("state", module="klp_relocs")


async def test_applied_when_the_patch_loads(guest: Guest, ko: Ko) -> None:
    await guest.insmod(ko("klp_target"))
    await guest.insmod(patch(ko))
    assert await guest.call("two") == 101
    assert await state(guest) == -1  # KLP_UNDEFINED: no transition


async def test_applied_late_cleared_and_applied_again(guest: Guest, ko: Ko) -> None:
    await guest.insmod(patch(ko))
    assert await state(guest) == -1
    place = guest.symbol("new_0_0", "klp_relocs")
    module = guest.kernel.modules.find("klp_relocs")
    assert module is not None
    size, base = module.core_size, module.core_base
    blank = guest.kernel.computer.memory.read(place, 48)
    addresses = set()
    for i in range(3):
        # at another address each time, as the old one is in use
        taken = guest.kernel.computer.map_pages(guest.kernel.computer.modules_area, 4096 * (i + 1))
        await guest.insmod(ko("klp_target"))
        addresses.add(guest.symbol("one"))
        assert base <= place < base + size
        assert guest.kernel.computer.memory.read(place, 48) != blank
        assert await guest.call("two") == 101
        await guest.rmmod("klp_target")
        assert guest.kernel.computer.memory.read(place, 48) == blank
        assert taken
    assert guest.klp_log()[-1] == "reverting patch 'klp_relocs' on unloading module 'klp_target'"


async def test_taken_back_when_the_module_is_refused(guest: Guest, ko: Ko) -> None:
    """The relocations succeed, then pre_patch of a second patch fails.

    The relocations of the first patch are cleared then, and can be applied again.
    """
    await guest.insmod(patch(ko))
    await guest.insmod(ko("klp_callbacks"), f"object={TARGET} fail=-{errno.ENODEV}")
    for _ in range(2):
        with pytest.raises(OSError):
            await guest.insmod(ko("klp_target"))
    guest.set("fail", 0, "klp_callbacks", size=4)
    await guest.insmod(ko("klp_target"))
    assert await guest.versions("one", "two") == [11, 111]


async def test_taken_back_when_another_section_fails(guest: Guest, ko: Ko) -> None:
    elf = Elf(ko("klp_relocs", SOURCE).read_bytes())
    elf.split(SECTION.format(TARGET), ".text", [elf.mark("one", ONE)])
    elf.split(
        SECTION.format(TARGET), ".text", [elf.mark("klp_target_state", f".klp.sym.{TARGET}.no,1")]
    )
    await guest.insmod(elf.bytes())
    guest.log()
    for _ in range(2):
        with pytest.raises(OSError) as caught:
            await guest.insmod(ko("klp_target"))
        assert caught.value.errno == errno.EINVAL
        assert guest.klp_log()[:2] == [
            "symbol 'no' not found in symbol table",
            "failed to initialize patch 'klp_relocs' for module 'klp_target' (-22)",
        ]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"state_section": ".klp.rela..text"},
         "section .klp.rela..text has an incorrectly formatted name"),
        ({"state_section": ".rela.vmlinux..text"},
         "section .rela.vmlinux..text has an incorrectly formatted name"),
        ({"state": ".klp.sym.vmlinux.klp_target_state"},
         "symbol .klp.sym.vmlinux.klp_target_state has an incorrectly formatted name"),
        ({"state": ".klp.sym.vmlinux.klp_target_state,first"},
         "symbol .klp.sym.vmlinux.klp_target_state,first has an incorrectly formatted name"),
        ({"state": ".klp.sym.vmlinux"}, "symbol .klp.sym.vmlinux has an incorrectly formatted name"),
        ({"state": ".klp.sym.vmlinux.nothing,1"}, "symbol 'nothing' not found in symbol table"),
        ({"state": ".klp.sym.vmlinux.klp_target_state,2"},
         "symbol position 2 for symbol 'klp_target_state' in object 'vmlinux' not found"),
    ],
)  # fmt: skip
async def test_malformed_at_load(guest: Guest, ko: Ko, changes: Changes, line: str) -> None:
    guest.log()
    with pytest.raises(OSError) as caught:
        await guest.insmod(patch(ko, **changes))
    assert caught.value.errno == errno.EINVAL
    assert line in guest.klp_log()
    assert guest.kernel.modules.find("klp_relocs") is None


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"one": ".klp.sym.vmlinux.jiffies,1"},
         "invalid access to vmlinux symbol 'jiffies' from module-specific livepatch relocation "
         "section"),
        ({"one": ".klp.sym.klp_target.five,1"}, "symbol 'five' not found in symbol table"),
        ({"one": ".klp.sym.klp_else.one,1"}, "symbol 'one' not found in symbol table"),
        ({"one": ONE, "shndx": 0xFFF1},
         f"symbol {ONE} is not marked as a livepatch symbol"),
    ],
)  # fmt: skip
async def test_malformed_for_a_module(guest: Guest, ko: Ko, changes: Changes, line: str) -> None:
    """Nobody looks at those before the module comes, which is refused then."""
    await guest.insmod(patch(ko, **changes))
    guest.log()
    with pytest.raises(OSError) as caught:
        await guest.insmod(ko("klp_target"))
    assert caught.value.errno == errno.EINVAL
    assert guest.klp_log() == [
        line,
        "failed to initialize patch 'klp_relocs' for module 'klp_target' (-22)",
        "patch 'klp_relocs' failed for module 'klp_target', refusing to load module 'klp_target'",
    ]
    await guest.write("klp_relocs/enabled", 0)
    await guest.rmmod("klp_relocs")
    await guest.insmod(ko("klp_target"))
    with pytest.raises(OSError):
        await guest.insmod(patch(ko, **changes))
    assert await guest.versions("one", "two") == [1, 2]


async def test_section_names_are_parsed_like_sscanf(guest: Guest, ko: Ko) -> None:
    """A name without a section, blanks before the position, text behind it."""
    await guest.insmod(ko("klp_target"))
    await guest.insmod(
        patch(
            ko, one=f".klp.sym.{TARGET}.one, 1st", one_section=f".klp.rela.{TARGET}",
            state_section=".klp.rela.vmlinux",
        )
    )  # fmt: skip
    assert await guest.call("two") == 101
    assert await state(guest) == -1


async def test_a_relocation_without_a_symbol(guest: Guest, ko: Ko) -> None:
    elf = Elf(ko("klp_relocs", SOURCE).read_bytes())
    elf.mark("one", ONE)
    elf.split(SECTION.format("vmlinux"), ".text", [elf.mark("klp_target_state", STATE)])
    at = len(elf.sections) - 1
    data = elf.sections[at].data
    offset, info, addend = _RELA.unpack(data[: _RELA.size])
    wild = _RELA.pack(offset, info & 0xFFFFFFFF | 9999 << 32, addend)
    elf.sections[at] = replace(elf.sections[at], data=wild + data[_RELA.size :])
    with pytest.raises(OSError) as caught:
        await guest.insmod(elf.bytes())
    assert caught.value.errno == errno.ENOEXEC


async def test_a_place_that_is_not_zero_is_not_relocated(guest: Guest, ko: Ko) -> None:
    await guest.insmod(patch(ko))
    memory = guest.kernel.computer.memory
    place = guest.symbol("new_0_0", "klp_relocs")
    code = memory.read(place, 48)
    call = code.index(b"\xe8\0\0\0\0", 5) + 1
    memory.write(place + call, b"\x01\0\0\0")
    guest.log()
    with pytest.raises(OSError) as caught:
        await guest.insmod(ko("klp_target"))
    assert caught.value.errno == errno.ENOEXEC
    assert any("existing value is nonzero" in line for line in guest.log())
    memory.write(place + call, b"\0\0\0\0")
    await guest.insmod(ko("klp_target"))
    assert await guest.call("two") == 101
    memory.write(place + call, b"\0\0\0\0")
    guest.log()
    await guest.rmmod("klp_target")  # is unloaded nevertheless
    assert any("existing value does not match" in line for line in guest.log())
