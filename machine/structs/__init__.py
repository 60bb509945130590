# SPDX-License-Identifier: GPL-2.0-or-later
"""C structs in guest memory, read and written like Python objects.

    patch = space.view("struct klp_patch", address)
    patch.enabled = True
    patch.objs[0].funcs[0].old_name.string()

A view holds an address and no data: every access goes to guest memory. Python names that are not
C members end in an underscore (``view.address_``), so that they hide no member.

`Space` gives typed access to a memory. It is built in layers, one file each:

======== ===========================================================================
plain    integers and strings at addresses
space    values of any C type at addresses
lists    ``struct list_head`` and ``struct hlist_head``: the class `Space` itself
views    `Struct`, `Array` and `Pointer`, the base classes of the classes below
classes  the Python class of each C type
codecs   how numbers are stored
======== ===========================================================================
"""

from klpfs.machine.structs.lists import LIST_POISON1, LIST_POISON2, Space
from klpfs.machine.structs.plain import MemoryLike
from klpfs.machine.structs.space import Field
from klpfs.machine.structs.views import Array, Pointer, Struct

__all__ = [
    "LIST_POISON1",
    "LIST_POISON2",
    "Array",
    "Field",
    "MemoryLike",
    "Pointer",
    "Space",
    "Struct",
]
