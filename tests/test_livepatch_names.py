# SPDX-License-Identifier: GPL-2.0-or-later
"""A reader who searches for a function of kernel/livepatch/ finds ours, or what replaces it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "machine"

FUNCTIONS = {
    "core.c": """
        klp_is_module klp_find_object_module klp_initialized klp_find_func klp_find_object
        klp_find_callback klp_find_object_symbol klp_resolve_symbols klp_apply_section_relocs
        enabled_store enabled_show transition_show force_store patched_show
        klp_free_object_dynamic klp_alloc_object_dynamic klp_free_func_nop klp_alloc_func_nop
        klp_add_object_nops klp_add_nops klp_kobj_release_patch klp_kobj_release_object
        klp_kobj_release_func __klp_free_funcs klp_free_object_loaded __klp_free_objects
        klp_free_objects klp_free_objects_dynamic klp_free_patch_start klp_free_patch_finish
        klp_free_patch_work_fn klp_free_patch_async klp_free_replaced_patches_async klp_init_func
        klp_apply_object_relocs klp_init_object_loaded klp_init_object klp_init_func_early
        klp_init_object_early klp_init_patch_early klp_init_patch __klp_disable_patch
        __klp_enable_patch klp_enable_patch klp_unpatch_replaced_patches klp_discard_nops
        klp_cleanup_module_patches_limited klp_module_coming klp_module_going klp_init
    """,
    "patch.c": """
        klp_find_ops klp_ftrace_handler klp_unpatch_func klp_patch_func __klp_unpatch_object
        klp_unpatch_object klp_patch_object __klp_unpatch_objects klp_unpatch_objects
        klp_unpatch_objects_dynamic
    """,
    "shadow.c": """
        klp_shadow_match klp_shadow_get __klp_shadow_get_or_alloc klp_shadow_alloc
        klp_shadow_get_or_alloc klp_shadow_free_struct klp_shadow_free klp_shadow_free_all
    """,
    "state.c": """
        klp_get_state klp_get_prev_state klp_is_state_compatible klp_is_patch_compatible
    """,
    "transition.c": """
        klp_transition_work_fn klp_sync klp_synchronize_transition klp_complete_transition
        klp_cancel_transition klp_update_patch_state klp_check_stack_func klp_check_stack
        klp_check_and_switch_task klp_try_switch_task klp_send_signals klp_try_complete_transition
        klp_start_transition klp_init_transition klp_reverse_transition klp_copy_process
        klp_force_transition
    """,
}
"""The functions of kernel/livepatch/ of Linux 6.1, by file."""


@pytest.fixture(scope="module")
def names() -> set[str]:
    """All identifiers in the sources of the livepatch core, the module loader and the guest code."""
    sources = [
        *(ROOT / "kernel" / "livepatch").rglob("*.py"),
        *(ROOT / "kernel" / "module").rglob("*.py"),
        *(ROOT / "guest").rglob("*.[ch]"),
    ]
    return {name for path in sources for name in re.findall(r"\w+", path.read_text())}


@pytest.mark.parametrize("file", FUNCTIONS)
def test_every_function_has_a_place(names: set[str], file: str) -> None:
    assert [name for name in FUNCTIONS[file].split() if name not in names] == []


@pytest.mark.parametrize("file", FUNCTIONS)
def test_the_list_is_that_of_the_kernel(linux_source: Path, file: str) -> None:
    """Definitions at the beginning of a line, whose body begins at the beginning of a line."""
    source = linux_source / "kernel" / "livepatch" / file
    if not source.exists():
        pytest.skip(f"no {source}")
    text = source.read_text()
    definition = re.compile(
        r"^(?:\w[\w \t*]*?[ *])?(\w+)\((?:[^;{}()]|\([^()]*\))*\)\s*^\{", re.MULTILINE
    )
    assert definition.findall(text) == FUNCTIONS[file].split()
