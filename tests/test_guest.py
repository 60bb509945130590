# SPDX-License-Identifier: GPL-2.0-or-later
"""The code of the embedded kernel, run without a kernel in Python and with a minimum of services."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from klpfs.machine.computer import Computer
from klpfs.machine.cpu import TRAP, Stop, StopReason
from klpfs.machine.extents import Extents
from klpfs.machine.image import embedded

STACK_SIZE = 16384
HEAP_SIZE = 1 << 20
NOP5 = bytes.fromhex("0f1f440000")
PATCHED, UNPATCHED = 1, 0


class Guest:
    """The embedded kernel with a heap, one stack, and locks that are always free."""

    def __init__(self) -> None:
        self.computer = computer = Computer(embedded.load(), memory_size=64 << 20)
        self.cpu, self.memory, self.space = computer.cpu, computer.memory, computer.space
        self.symbol = computer.symbol
        stack = computer.map_pages(computer.vmalloc_area, STACK_SIZE)
        computer.variable("struct task_struct", "init_task").stack = stack
        self.stack_top = stack + STACK_SIZE
        self._heap = computer.map_pages(computer.vmalloc_area, HEAP_SIZE)
        self.allocated: set[int] = set()
        self.log: list[str] = []
        self._trap("guest_return", lambda: False)
        self._serve("__kmalloc", self._alloc)
        self._serve("kvmalloc_node", self._alloc)
        self._serve("kfree", self._free)
        self._serve("kvfree", self._free)
        for name in (
            "mutex_lock",
            "mutex_unlock",
            "down_read",
            "up_read",
            "down_write",
            "up_write",
        ):
            self._serve(name, lambda *_: None)
        self._serve("sprint_symbol", lambda to, at, *_: self._sprint(to, f"name+{at:#x}/0x10"))
        self._serve("sprint_symbol_no_offset", lambda to, at, *_: self._sprint(to, "name"))
        self._serve("sprint_backtrace", lambda to, at, *_: self._sprint(to, "caller"))
        for site in computer.image.ftrace_sites:
            self.poke(site, NOP5)

    def _trap(self, name: str, handler: Callable[[], bool]) -> None:
        self.poke(self.symbol(name), TRAP)
        self.cpu.set_trap(self.symbol(name), handler)

    def _serve(self, name: str, function: Callable[..., int | None]) -> None:
        def serve() -> bool:
            self.cpu["rax"] = function(*self.cpu.arguments(4)) or 0
            return True

        self._trap(name, serve)

    def _alloc(self, size: int, *_: int) -> int:
        address, self._heap = self._heap, self._heap + (size + 31 & -32)
        self.memory.write(address, bytes(size))
        self.allocated.add(address)
        return address

    def _free(self, address: int, *_: int) -> None:
        if address:
            self.allocated.remove(address)

    def _sprint(self, to: int, text: str) -> int:
        self.memory.write(to, text.encode() + b"\0")
        return len(text)

    def poke(self, address: int, code: bytes) -> None:
        self.memory.write(address, code)
        self.cpu.code_changed(address, len(code))

    def put(self, data: bytes | str) -> int:
        """Copy ``data`` into the guest, a string with a NUL; return the address."""
        raw = data.encode() + b"\0" if isinstance(data, str) else data
        address = self._alloc(len(raw))
        self.allocated.remove(address)
        self.memory.write(address, raw)
        return address

    def va_list(self, arguments: tuple[Any, ...]) -> int:
        words = [
            self.put(value) if isinstance(value, (str, bytes)) else value & (1 << 64) - 1
            for value in arguments
        ]
        area = self.put(struct.pack(f"<{len(words)}Q", *words) + bytes(8))
        return self.put(struct.pack("<IIQQ", 48, 48, area, 0))

    def call(self, function: str | int, *arguments: int) -> int:
        """Call a function of the guest, and return RAX."""
        stop = self.start(function, *arguments)
        assert stop == Stop(StopReason.TRAP, self.symbol("guest_return")), (
            stop,
            hex(self.cpu["rip"]),
        )
        return self.cpu["rax"]

    def start(self, function: str | int, *arguments: int) -> Stop:
        self.cpu["rsp"] = self.stack_top - 8
        self.cpu["rbp"] = 0
        self.space.write_u64(self.stack_top - 8, self.symbol("guest_return"))
        self.cpu.set_arguments(arguments)
        self.cpu["rip"] = self.symbol(function) if isinstance(function, str) else function
        while True:
            stop = self.cpu.run()
            if stop.reason is not StopReason.EXPIRED:
                return stop

    def format(self, fmt: str, *arguments: Any, size: int = 512) -> str:
        buffer = self.put(bytes(max(size, 1)))
        length = self.call("vsnprintf", buffer, size, self.put(fmt), self.va_list(arguments))
        text = self.memory.read(buffer, size).split(b"\0")[0].decode()
        assert length == len(text) or length >= size
        return text


@pytest.fixture(scope="module")
def shared() -> Iterator[Guest]:
    machine = Guest()
    yield machine
    machine.computer.cpu.close()


@pytest.fixture
def guest(shared: Guest) -> Guest:
    shared.allocated.clear()
    return shared


# -- vsnprintf ------------------------------------------------------------------------------------

MAC = bytes.fromhex("001b4411ab3f")
LOCALHOST6 = bytes(15) + b"\1"
UUID = bytes(range(16))
TEXT = 0xFFFFFFFF81234567


@pytest.mark.parametrize(
    ("fmt", "arguments", "expected"),
    [
        ("plain", (), "plain"),
        ("100%%", (), "100%"),
        ("%d %i %u", (-5, 7, -1), "-5 7 4294967295"),
        ("%5d|%-5d|%05d", (42, 42, 42), "   42|42   |00042"),
        ("%+d % d %+d", (3, 3, -3), "+3  3 -3"),
        ("%05d|%+05d", (-42, 42), "-0042|+0042"),
        ("%.3d|%8.3d|%-8.3d|", (5, 5, 5), "005|     005|005     |"),
        ("%x %X %#x %#X", (255, 255, 255, 255), "ff FF 0xff 0XFF"),
        ("%#x %#o %o", (0, 0, 8), "0x0 0 10"),
        ("%#010x|%#o", (0xBEEF, 8), "0x0000beef|010"),
        ("%hhd %hhu %hd %hu", (0x1FF, 0x1FF, 0x18000, 0x18000), "-1 255 -32768 32768"),
        ("%ld %lu", (-1, -1), "-1 18446744073709551615"),
        ("%lld %llx %Lx", (-(1 << 63), 1 << 63, 5), "-9223372036854775808 8000000000000000 5"),
        ("%zu %zd %td", (1 << 40, -2, -3), "1099511627776 -2 -3"),
        ("%*d|%-*d|%*d|", (5, 1, 5, 1, -5, 1), "    1|1    |1    |"),
        ("%.*s|%.2s|%5s|%-5s|", (3, "abcdef", "xyz", "ab", "ab"), "abc|xy|   ab|ab   |"),
        ("%s %s", (0, 16), "(null) (efault)"),
        ("%10s|%.3s|", (0, 0), "    (null)|(nu|"),
        ("%c|%3c|%-3c|", (65, 66, 67), "A|  B|C  |"),
        ("%px", (TEXT,), "ffffffff81234567"),
        ("%px", (1,), "0000000000000001"),
        ("%p %p", (0, -12), "0000000000000000 fffffffffffffff4"),
        ("%p", (TEXT,), "(____ptrval____)"),
        ("%20p|%-20p|", (TEXT, TEXT), "    (____ptrval____)|(____ptrval____)    |"),
        ("%pK", (TEXT,), "(____ptrval____)"),
        ("%pS|%ps|%pB", (0x10, 0x10, 0x10), "name+0x10/0x10|name|caller"),
        ("%-8ps|%8ps|", (0x10, 0x10), "name    |    name|"),
        ("%*ph", (4, b"\x00\x7f\x80\xff"), "00 7f 80 ff"),
        ("%*phC %*phD %*phN", (2, b"\1\2", 2, b"\1\2", 2, b"\1\2"), "01:02 01-02 0102"),
        ("%pM %pMF %pMR", (MAC, MAC, MAC), "00:1b:44:11:ab:3f 00-1b-44-11-ab-3f 3f:ab:11:44:1b:00"),
        ("%pm %pmR", (MAC, MAC), "001b4411ab3f 3fab11441b00"),
        ("%pI4 %pi4", (b"\x7f\0\0\1", b"\x7f\0\0\1"), "127.0.0.1 127.000.000.001"),
        ("%pI4h", (b"\1\0\0\x7f",), "127.0.0.1"),
        ("%pI6", (LOCALHOST6,), "0000:0000:0000:0000:0000:0000:0000:0001"),
        ("%pi6", (LOCALHOST6,), "00000000000000000000000000000001"),
        ("%pI6c|%pI6c", (LOCALHOST6, bytes(16)), "::1|::"),
        ("%pI6c", (bytes.fromhex("20010db8000000000000000000020001"),), "2001:db8::2:1"),
        ("%pI6c", (b"\x20\1" + bytes(14),), "2001::"),
        ("%pI6c", (bytes(10) + b"\xff\xff\1\2\3\4",), "::ffff:1.2.3.4"),
        ("%pUb", (UUID,), "00010203-0405-0607-0809-0a0b0c0d0e0f"),
        ("%pUL", (UUID,), "03020100-0504-0706-0809-0A0B0C0D0E0F"),
        ("%pe %pe", (-12, -9999 & 0xFFF | -4096), "-ENOMEM -1807"),
        ("%pa", (struct.pack("<Q", 0x1234),), "0x0000000000001234"),
        ("%*pbl", (16, struct.pack("<Q", 0b1011_0111)), "0-2,4-5,7"),
        ("%*pb", (40, struct.pack("<Q", 0xAB_1234_5678)), "ab,12345678"),
        ("%pM|%pUb", (0, 0), "(null)|(null)"),
    ],
)
def test_vsnprintf(guest: Guest, fmt: str, arguments: tuple[Any, ...], expected: str) -> None:
    assert guest.format(fmt, *arguments) == expected


def test_vsnprintf_counts_what_does_not_fit(guest: Guest) -> None:
    buffer = guest.put(b"#" * 8)
    va_list = guest.va_list(("abcdefgh",))
    assert guest.call("vsnprintf", buffer, 4, guest.put("<%s>"), va_list) == 10
    assert guest.memory.read(buffer, 8) == b"<ab\0####"
    va_list = guest.va_list(("abcdefgh",))
    assert guest.call("vscnprintf", buffer, 4, guest.put("<%s>"), va_list) == 3
    assert guest.call("vsnprintf", 0, 0, guest.put("12345"), guest.va_list(())) == 5


def test_a_format_within_a_format(guest: Guest) -> None:
    inner = struct.pack("<QQ", guest.put("[%d %s]"), guest.va_list((7, "seven")))
    assert guest.format("%pV after %d", inner, 8) == "[7 seven] after 8"


def test_hashed_addresses_are_siphash(guest: Guest) -> None:
    guest.memory.write(guest.symbol("ptr_key"), bytes(range(16)))
    try:  # the low 32 bits of the 8-byte vector of SipHash-2-4's reference implementation
        message = int.from_bytes(bytes(range(8)), "little")
        expected = int.from_bytes(bytes.fromhex("6224939a79f5f593"), "little") & 0xFFFFFFFF
        assert guest.format("%p", message) == f"{expected:016x}"
    finally:
        guest.memory.write(guest.symbol("ptr_key"), bytes(16))


@pytest.mark.parametrize("fmt", ["%ncd", "%fcd", "%"])
def test_a_conversion_that_does_not_exist_warns_and_ends_the_text(guest: Guest, fmt: str) -> None:
    buffer = guest.put(bytes(16))
    guest._serve("vprintk_emit", lambda *_: 0)
    done = guest.symbol("guest_return")
    guest.start("vsnprintf", buffer, 16, guest.put("ab" + fmt), guest.va_list((0,)))
    if guest.memory.read(guest.cpu["rip"], 2) == b"\x0f\x0b":  # only the first time
        guest.cpu["rip"] += 2
        while (stop := guest.cpu.run()).reason is StopReason.EXPIRED:
            pass
        assert stop == Stop(StopReason.TRAP, done)
    assert guest.memory.read(buffer, 4) == b"ab\0\0"


# -- text to numbers ------------------------------------------------------------------------------

EINVAL, ERANGE = -22, -34


@pytest.mark.parametrize(
    ("function", "text", "base", "expected"),
    [
        ("kstrtoint", "42", 0, 42), ("kstrtoint", "-42\n", 0, -42), ("kstrtoint", "0x1F", 0, 31),
        ("kstrtoint", "010", 0, 8), ("kstrtoint", "010", 10, 10), ("kstrtoint", "+5", 0, 5),
        ("kstrtoint", "2147483648", 0, ERANGE), ("kstrtoint", "-2147483648", 0, -(1 << 31)),
        ("kstrtoint", "", 0, EINVAL), ("kstrtoint", "1 ", 0, EINVAL), ("kstrtoint", "0x", 0, EINVAL),
        ("kstrtoint", "1\n\n", 0, EINVAL), ("kstrtoint", " 1", 0, EINVAL),
        ("kstrtouint", "-1", 0, EINVAL), ("kstrtouint", "4294967295", 0, -1),
        ("kstrtou8", "256", 0, ERANGE), ("kstrtos8", "-129", 0, ERANGE),
        ("kstrtoull", "18446744073709551615", 0, -1), ("kstrtoull", "18446744073709551616", 0, ERANGE),
        ("kstrtoll", "-9223372036854775809", 0, ERANGE),
    ],
)  # fmt: skip
def test_kstrto(guest: Guest, function: str, text: str, base: int, expected: int) -> None:
    result = guest.put(bytes(8))
    error = guest.call(function, guest.put(text), base, result) & 0xFFFFFFFF
    if expected in (EINVAL, ERANGE):
        assert error == expected & 0xFFFFFFFF
    else:
        assert error == 0
        size = {"kstrtoull": 8, "kstrtoll": 8}.get(function, 4)
        value = int.from_bytes(guest.memory.read(result, size), "little", signed=True)
        assert value == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("y", 1), ("1", 1), ("on", 1), ("N", 0), ("off", 0), ("x", None), ("o", None)],
)
def test_kstrtobool(guest: Guest, text: str, expected: int | None) -> None:
    result = guest.put(b"\xff")
    error = guest.call("kstrtobool", guest.put(text), result) & 0xFFFFFFFF
    assert error == (EINVAL & 0xFFFFFFFF if expected is None else 0)
    assert guest.memory.read(result, 1)[0] == (0xFF if expected is None else expected)


def test_sscanf(guest: Guest) -> None:
    a, b, word, rest = (guest.put(bytes(16)) for _ in range(4))
    text, fmt = guest.put("12 -0x1f, key=val"), guest.put("%d %i, %3s=%15[a-z]")
    assert guest.call("vsscanf", text, fmt, guest.va_list((a, b, word, rest))) == 3
    assert guest.space.read_s32(a) == 12
    assert guest.space.read_s32(b) == -0x1F
    assert guest.space.read_string(word) == "key"
    value = guest.put(bytes(8))
    scan = guest.call("vsscanf", guest.put("1234"), guest.put("%2d%n"), guest.va_list((a, value)))
    assert (scan, guest.space.read_s32(a), guest.space.read_s32(value)) == (1, 12, 2)


def test_next_arg(guest: Guest) -> None:
    param, value = guest.put(bytes(8)), guest.put(bytes(8))
    at, seen = guest.put('quiet a=1  text="two words" "b=c d" last='), []
    while guest.memory.read(at, 1) != b"\0":
        at = guest.call("next_arg", at, param, value)
        value_at = guest.space.read_u64(value)
        name = guest.space.read_string(guest.space.read_u64(param))
        seen.append((name, guest.space.read_string(value_at) if value_at else None))
    assert seen == [("quiet", None), ("a", "1"), ("text", "two words"), ("b", "c d"), ("last", "")]


# -- seq_file and /proc ---------------------------------------------------------------------------


def read_through_seq_file(guest: Guest, show: int, chunk: int) -> bytes:
    """Read a file of one element with a buffer of ``chunk`` bytes; return its content."""
    types = guest.space.types
    file = guest.space.view("struct file", guest.put(bytes(types.sizeof("struct file"))))
    assert guest.call("single_open", file.address_, show, 0) == 0
    position, buffer, content = file.member_address_("f_pos"), guest.put(bytes(chunk)), b""
    while got := guest.call("seq_read", file.address_, buffer, chunk, position):
        assert got <= chunk
        content += guest.memory.read(buffer, got)
    assert guest.call("single_release", 0, file.address_) == 0
    return content


@pytest.mark.parametrize("chunk", [7, 4096])
def test_cmdline_through_seq_file(guest: Guest, chunk: int) -> None:
    show = guest.symbol("cmdline_proc_show")
    expected = guest.space.read_string(guest.space.read_u64(guest.symbol("saved_command_line")))
    assert read_through_seq_file(guest, show, chunk) == expected.encode() + b"\n"
    assert not guest.allocated  # all memory was freed


def test_an_element_larger_than_the_buffer_is_shown_again(guest: Guest) -> None:
    command_line = guest.space.read_u64(guest.symbol("saved_command_line"))
    long = b"x" * 20000
    guest.space.write_u64(guest.symbol("saved_command_line"), guest.put(long + b"\0"))
    try:
        assert read_through_seq_file(guest, guest.symbol("cmdline_proc_show"), 4096) == long + b"\n"
    finally:
        guest.space.write_u64(guest.symbol("saved_command_line"), command_line)
    assert not guest.allocated


def test_version(guest: Guest) -> None:
    text = read_through_seq_file(guest, guest.symbol("version_proc_show"), 4096).decode()
    assert text == guest.computer.image.banner


def test_uname(guest: Guest) -> None:
    name = guest.computer.map_pages(Extents(0x10000, 0x20000), 390)
    regs = guest.put(bytes(guest.space.types.sizeof("struct pt_regs")))
    guest.space.view("struct pt_regs", regs).di = name
    assert guest.call("__x64_sys_newuname", regs) == 0
    uts = guest.space.view("struct new_utsname", name)
    assert uts.sysname.string() == "Linux"
    assert uts.release.string() == guest.computer.image.release
    assert uts.machine.string() == "x86_64"


# -- ftrace and the livepatch handler -------------------------------------------------------------


class Traced:
    """A function ``a + b`` whose ftrace site calls klp_ftrace_handler."""

    ORIGINAL = NOP5 + bytes.fromhex("488d0437c3")  # lea rax, [rdi + rsi]; ret
    REPLACEMENT = bytes.fromhex("488d443764c3")  # lea rax, [rdi + rsi + 100]; ret

    def __init__(self, guest: Guest, caller: str, call: str) -> None:
        self.guest = guest
        computer = guest.computer
        page = computer.map_pages(computer.modules_area, 4096, writable=False, executable=True)
        self.function, self.newer, self.newest = page, page + 64, page + 128
        guest.poke(self.function, self.ORIGINAL)
        guest.poke(self.newer, self.REPLACEMENT)
        guest.poke(self.newest, bytes.fromhex("31c0c3"))  # xor eax, eax; ret
        types = guest.space.types
        ops = guest.put(bytes(types.sizeof("struct klp_ops")))
        self.ops = guest.space.view("struct klp_ops", ops)
        self.stack = self.ops.member_address_("func_stack")
        guest.space.write_u64(self.stack, self.stack)
        guest.space.write_u64(self.stack + 8, self.stack)
        fops = self.ops.member_address_("fops")
        guest.space.write_u64(guest.symbol("function_trace_op"), fops)
        self._point(guest.symbol(call), guest.symbol("klp_ftrace_handler"))
        self._point(self.function, guest.symbol(caller))

    def _point(self, site: int, target: int) -> None:
        self.guest.poke(site, struct.pack("<Bi", 0xE8, target - site - 5))

    def push(self, new_func: int, **members: int) -> Any:
        space = self.guest.space
        func = space.view(
            "struct klp_func", self.guest.put(bytes(space.types.sizeof("struct klp_func")))
        )
        func.new_func = new_func
        for name, value in members.items():
            setattr(func, name, value)
        first = space.read_u64(self.stack)
        node = func.member_address_("stack_node")
        space.write_u64(node, first)
        space.write_u64(node + 8, self.stack)
        space.write_u64(first + 8, node)
        space.write_u64(self.stack, node)
        return func

    def __call__(self, a: int, b: int) -> int:
        return self.guest.call(self.function, a, b)


CALLERS = [("ftrace_caller", "ftrace_call"), ("ftrace_regs_caller", "ftrace_regs_call")]


@pytest.fixture(params=CALLERS, ids=lambda caller: str(caller[0]))
def traced(request: pytest.FixtureRequest) -> Iterator[Traced]:
    machine = Guest()
    yield Traced(machine, *request.param)
    machine.computer.cpu.close()


def test_the_newest_version_runs(traced: Traced) -> None:
    traced.push(traced.newer)
    assert traced(1, 2) == 103
    traced.push(traced.newest)
    assert traced(1, 2) == 0


def test_in_a_transition_each_task_runs_its_own_version(traced: Traced) -> None:
    task = traced.guest.computer.variable("struct task_struct", "init_task")
    func = traced.push(traced.newer, transition=1)
    task.patch_state = UNPATCHED
    assert traced(1, 2) == 3
    task.patch_state = PATCHED
    assert traced(1, 2) == 103
    func.transition = 0
    traced.push(traced.newest, transition=1)
    task.patch_state = UNPATCHED
    assert traced(1, 2) == 103


def test_a_nop_brings_the_original_back(traced: Traced) -> None:
    traced.push(traced.newer)
    traced.push(traced.function, nop=1)
    assert traced(1, 2) == 3


def test_the_callers_leave_the_registers_alone(traced: Traced) -> None:
    traced.push(traced.function, nop=1)
    cpu = traced.guest.cpu
    before = {name: 0x1111 * i for i, name in enumerate(("rbx", "rcx", "rdx", "r8", "r9", "r10", "r11",
                                                         "r12", "r13", "r14", "r15"), 1)}  # fmt: skip
    if traced.guest.space.read_s32(
        traced.function + 1
    ) + traced.function + 5 == traced.guest.symbol(
        "ftrace_caller"
    ):  # scratch registers that hold no argument may change
        del before["r10"], before["r11"]
    for name, value in before.items():
        cpu[name] = value
    traced(1, 2)
    assert {name: cpu[name] for name in before} == before
    assert cpu["rsp"] == traced.guest.stack_top
    assert cpu["rbp"] == 0


def test_preemption_is_on_again_and_the_recursion_bit_clear(traced: Traced) -> None:
    guest = traced.guest
    traced.push(traced.newer)
    traced(1, 2)
    assert guest.space.read_u32(guest.symbol("__preempt_count")) == 0x80000000
    assert guest.computer.variable("struct task_struct", "init_task").trace_recursion == 0


def test_the_handler_sees_the_site_its_caller_and_a_complete_stack(traced: Traced) -> None:
    guest = traced.guest
    seen: dict[str, Any] = {}
    chain: list[int] = []
    traced.push(traced.newer)

    def handler() -> bool:
        ip, parent, ops, regs = guest.cpu.arguments(4)
        view = guest.space.view("struct pt_regs", regs)
        seen.update(
            ip=ip, parent=parent, ops=ops, regs_ip=view.ip, sp=view.sp, di=view.di, cs=view.cs
        )
        frame = guest.cpu["rbp"]
        while frame:
            chain.append(guest.space.read_u64(frame + 8))
            frame = guest.space.read_u64(frame)
        view.ip = traced.newer
        return True

    guest._trap("klp_ftrace_handler", handler)
    assert traced(1, 2) == 103
    function, caller = traced.function, guest.symbol("guest_return")
    assert seen["ip"] == function
    assert seen["parent"] == caller
    assert seen["ops"] == traced.ops.member_address_("fops")
    assert seen["regs_ip"] == function + 5
    assert seen["sp"] == guest.stack_top - 8
    assert seen["di"] == 1
    assert chain == [function + 5, caller]


def test_list_func_calls_the_ops_whose_filter_has_the_function(traced: Traced) -> None:
    """A site with several ops calls ftrace_ops_list_func."""
    guest = traced.guest
    called: list[int] = []
    traced.push(traced.newer)
    size = guest.space.types.sizeof("struct ftrace_ops")
    for site in (guest.symbol("ftrace_call"), guest.symbol("ftrace_regs_call")):
        traced._point(site, guest.symbol("ftrace_ops_list_func"))

    def handler() -> bool:
        called.append(guest.cpu.arguments(3)[2])
        return True

    guest._trap("ftrace_stub", handler)
    ours, others = (guest.space.view("struct ftrace_ops", guest.put(bytes(size))) for _ in range(2))
    for ops, ip in ((ours, traced.function), (others, traced.newest)):
        ops.func = guest.symbol("ftrace_stub")
        ops.func_hash = ops.member_address_("local_hash")
        hash_ = guest.space.view("struct ftrace_hash", guest.put(bytes(64)))
        entry = guest.put(struct.pack("<QQQQ", 0, 0, ip, 0))
        hash_.size_bits, hash_.count, hash_.buckets = 0, 1, guest.put(struct.pack("<Q", entry))
        ops.local_hash.filter_hash = hash_
    ours.next, others.next = others, guest.symbol("ftrace_list_end")
    guest.space.write_u64(guest.symbol("ftrace_ops_list"), ours.address_)
    assert traced(1, 2) == 3
    assert called == [ours.address_]
