# SPDX-License-Identifier: GPL-2.0-or-later
"""Live patching: kernel/livepatch/ of Linux 6.1, with the names of its functions.

Names that begin with ``__`` are private to a class in Python, so ``__klp_enable_patch`` and
``__klp_disable_patch`` are `core.Core.klp_enable` and `core.Core.klp_disable`.

The files, from the bottom up. A file imports only what is above it; `consistency.universe`, the states of
tasks, is at the level of `objects`.

=================  ==================================================================================
abi                what differs between kernels, as a table
objects            klp_for_each_object and the like; the list klp_patches
common             klp_mutex, pr_err and the like; the first argument of the parts below
redirection        how calls are led to a replacement: by ftrace, or by a jump
patch              klp_patch_object: the stack of replacements of each function
consistency/       consistency models: what a task must have left, and what switches at once
callbacks          klp_pre_patch_callback and the like
symbols            klp_find_object_symbol
kobjects           the directories in sysfs
free               klp_free_patch_async and the like
replace            klp_add_nops, klp_unpatch_replaced_patches, klp_discard_nops
transition         klp_init_transition, klp_start_transition, klp_try_complete_transition
state              klp_get_state, klp_get_prev_state
sysfs              the files in sysfs
loaded             klp_init_object_loaded
init               klp_init_patch
core               klp_enable_patch, __klp_enable_patch, __klp_disable_patch, enabled_store
going, coming      klp_module_going, klp_module_coming
older/             the parts of older kernels
build              klp_init: chooses the parts by the ABI, and puts them together
off                a kernel without live patching
=================  ==================================================================================

``klp_ftrace_handler`` (machine/guest/livepatch.c) and the shadow variables (machine/guest/shadow.c) are guest
code. The relocations of patches belong to the module loader: `klpfs.machine.kernel.module.relocations`.

The core is composed. `core.Core` enables and disables a patch with the transition, the callbacks and the
patched functions that it is given. The lifecycle around it is the API: with `core.EnabledLifecycle` a
patch is enabled once, with `older.registered.RegisteredLifecycle` it is registered first. Where kernels
differ in more than a log line or a name, there is a Protocol with a class for each:
`callbacks.Callbacks`, `transition.Transition`, `loaded.LoadedObjects`, `coming.ComingModules`,
`older.references.References`, `redirection.Redirection`.

A write of ``0`` to ``enabled``:

1. `core.EnabledLifecycle.enabled_store` parses the data, takes klp_mutex, and calls `core.Core.klp_disable`.
2. ``klp_init_transition`` makes a switch for the consistency model of the patch
   (`consistency.switches.Switches`). The switch sets ``func->transition``, and the state of each task.
3. ``klp_pre_unpatch_callback`` runs guest code, for each object.
4. ``klp_start_transition`` sets TIF_PATCH_PENDING in each task. From now on a task that leaves the kernel
   converts: `consistency.universe.Universes.klp_update_patch_state`.
5. ``klp_try_complete_transition`` lets the switch make an attempt. The default switch,
   `consistency.by_thread.ByThread`, converts each task whose stack has none of the functions
   (`consistency.leaving.Leaving.patched_set`).
6. If a task remains, the write returns, and a worker makes another attempt each second:
   ``klp_transition_work_fn``.
7. Otherwise ``klp_complete_transition`` takes the functions off their stacks, clears all states, and calls
   ``klp_post_unpatch_callback``. ``klp_free_patch_async`` frees the patch; a worker removes its directory,
   because the file that is being written is in it.
"""
