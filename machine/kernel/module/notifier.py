# SPDX-License-Identifier: GPL-2.0-or-later
"""The module notifiers of guest code: ``module_notify_list``. kernel/module/main.c, kernel/notifier.c."""

from __future__ import annotations

from klpfs.machine.kernel.base import Base
from klpfs.machine.kernel.module.loaded import LoadedModule, State
from klpfs.machine.kernel.module.subscribers import ModuleSubscriber

_STOP_MASK = 0x8000  # NOTIFY_STOP_MASK


class ModuleNotifiers:
    """Calls the notifiers of guest code. It does nothing for an image without ``module_notify_list``."""

    def __init__(self, base: Base) -> None:
        self._sched = base.sched
        lookup = base.computer.symbols.lookup
        self._head = lookup("module_notify_list")
        self._call_chain = lookup("blocking_notifier_call_chain")
        self._call_chain_robust = lookup("blocking_notifier_call_chain_robust")

    def subscriber(self) -> ModuleSubscriber:
        """Return the subscriber that calls the notifiers."""
        return ModuleSubscriber(coming=self._coming, live=self._live, going=self._going)

    async def _coming(self, module: LoadedModule) -> None:
        """Call the notifiers with MODULE_STATE_COMING. Raises OSError if one refuses the module."""
        if not self._head or not self._call_chain:
            return
        if not self._call_chain_robust:
            await self._notify(module, State.COMING)
            return
        address = module.struct.address_
        result = await self._sched.current.call(
            self._call_chain_robust, self._head, State.COMING, State.GOING, address
        )
        if result & _STOP_MASK:
            raise OSError((result & ~_STOP_MASK) - 1, "a notifier refuses the module")

    async def _live(self, module: LoadedModule) -> None:
        await self._notify(module, State.LIVE)

    async def _going(self, module: LoadedModule) -> None:
        module.struct.state = State.GOING
        await self._notify(module, State.GOING)

    async def _notify(self, module: LoadedModule, state: State) -> None:
        if self._head and self._call_chain:
            address = module.struct.address_
            await self._sched.current.call(self._call_chain, self._head, state, address)
