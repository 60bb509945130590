# SPDX-License-Identifier: GPL-2.0-or-later
"""What older kernels did in another way than Linux 6.1, as parts that `livepatch.build` gives to the core.

=============  ==========================  ==========================================================
file           instead of                  what is different
=============  ==========================  ==========================================================
registered     core.EnabledLifecycle       a patch is registered, then enabled and disabled at will
references                                 when a registered patch holds its module
callbacks      callbacks.ObjectCallbacks   objects have no callbacks
immediate      transition.                 a patch takes effect at once, for all tasks
               ConsistentTransition
loaded,        loaded.                     a patch may bring the addresses of functions (``old_addr``),
symbols        SectionLoadedObjects        and has its relocations in structs
struct_relocs                              the relocations of an array of ``struct klp_reloc``
notifier       coming.StrictComingModules  a module that cannot be patched is loaded all the same
=============  ==========================  ==========================================================

The sources are Linux 4.12 and Linux 4.0, which "3.20" became.
"""
