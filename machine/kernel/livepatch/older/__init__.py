# SPDX-License-Identifier: GPL-2.0-or-later
"""What older kernels did in another way than today's, as parts that `livepatch.build` gives to the core.

==============  =====================  ====================================================================
file            instead of             what it is
==============  =====================  ====================================================================
registered.py   core.EnabledLifecycle  a patch is registered, then enabled and disabled at will (until 5.1)
references.py                          when a registered patch holds its module: 4.12, 3.20
callbacks.py    callbacks              objects have no callbacks (before 4.15)
immediate.py    transition             a patch takes effect at once, for all tasks (before 4.12)
loaded.py       loaded                 ``old_addr`` and ``struct klp_reloc`` (before 4.7)
struct_relocs.py                       the relocations of a ``struct klp_reloc`` array
notifier.py     coming                 a module that cannot be patched is loaded all the same (before 4.6)
==============  =====================  ====================================================================

The sources are Linux 4.12 and 4.0 (which "3.20" became).
"""
