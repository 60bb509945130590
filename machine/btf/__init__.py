# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel's own type information: BTF, Documentation/bpf/btf.rst.

A kernel's blob holds some 130,000 types, of which a run uses a few dozen. So `Types` walks the
blob once to learn where each type is, and decodes a type when it is first used.
"""

from klpfs.machine.btf.blob import BtfError
from klpfs.machine.btf.kinds import Kind
from klpfs.machine.btf.type import Member, Parameter, Type
from klpfs.machine.btf.types import Types

__all__ = ["BtfError", "Kind", "Member", "Parameter", "Type", "Types"]
