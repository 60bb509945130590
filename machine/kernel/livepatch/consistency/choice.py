# SPDX-License-Identifier: GPL-2.0-or-later
"""The consistency model of each patch: what the patch accepts, and what the administrator allows."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence

from klpfs.machine.kernel.kobject import KobjAttribute, Kobject
from klpfs.machine.kernel.livepatch.common import Messages
from klpfs.machine.kernel.livepatch.consistency import DEFAULT, Model, parse, split
from klpfs.machine.structs import Struct

ANY = "any"
MODINFO = "klp_consistency"

Modinfo = Callable[[int, str], str | None]
"""Return the value of a tag in the modinfo of the module at an address, or None."""


class Consistency:
    """The models of the patches of one kernel.

    ``unavailable`` returns why this kernel image cannot have a model, or an empty string. Without
    ``modinfo`` all patches have the default.
    """

    def __init__(
        self,
        messages: Messages,
        *,
        unavailable: Callable[[Model], str],
        modinfo: Modinfo | None,
        default: Model = DEFAULT,
    ) -> None:
        self._messages = messages
        self._unavailable = unavailable
        self._modinfo = modinfo
        self.default = default
        """The model of a patch that lists none."""
        self.allowed: Sequence[Model] | None = None
        """The models that the administrator allows; None: all."""
        self._models: dict[int, Model] = {}

    # -- patches ----------------------------------------------------------------------------------

    def of(self, patch: Struct) -> Model:
        """Return the model of an installed patch."""
        return self._models.get(patch.address_, self.default)

    def choose(self, patch: Struct, name: str) -> None:
        """Give a patch the first model in its list that is allowed and available. Raises OSError(EINVAL),
        after log lines, if there is none."""
        text = self._modinfo(int(patch.mod), MODINFO) if self._modinfo is not None else None
        accepted = self._parse_list(name, text) if text is not None else [self.default]
        for model in accepted:
            if self._is_allowed(model) and not self._unavailable(model):
                self._models[patch.address_] = model
                return
        for model in accepted:
            if self._is_allowed(model):
                self._messages.pr_err(
                    f"consistency model '{model.name}': {self._unavailable(model)}"
                )
        self._messages.pr_err(
            f"patch '{name}': no consistency model in common: it accepts "
            f"{_names(accepted) or 'none'}, the administrator allows {self._allowed_text()}"
        )
        raise OSError(errno.EINVAL, "no consistency model in common")

    def _parse_list(self, name: str, text: str) -> list[Model]:
        models = []
        for word in split(text):
            try:
                models.append(parse(word))
            except ValueError:
                self._messages.pr_warn(f"patch '{name}': unknown consistency model '{word}'")
        return models

    def _is_allowed(self, model: Model) -> bool:
        return self.allowed is None or model in self.allowed

    def forget(self, patch: Struct) -> None:
        """Forget the model of a patch that is no longer installed."""
        self._models.pop(patch.address_, None)

    # -- the administrator ------------------------------------------------------------------------

    def parameters(self) -> Kobject:
        """Return the directory with the parameters."""
        return Kobject(
            "parameters",
            [
                KobjAttribute("consistency", self._default_show, self._default_store),
                KobjAttribute("consistency_allowed", self._allowed_show, self._allowed_store),
            ],
        )

    def _parse(self, text: str) -> Model:
        try:
            return parse(text)
        except ValueError:
            self._messages.pr_err(f"unknown consistency model '{text}'")
            raise OSError(errno.EINVAL, "no such model") from None

    def _allowed_text(self) -> str:
        return ANY if self.allowed is None else _names(self.allowed)

    def _default_show(self) -> str:
        return f"{self.default.name}\n"

    async def _default_store(self, data: bytes) -> None:
        model = self._parse(_text(data))
        if why := self._unavailable(model):
            self._messages.pr_err(f"consistency model '{model.name}': {why}")
            raise OSError(errno.EINVAL, "not on this kernel")
        self.default = model

    def _allowed_show(self) -> str:
        return f"{self._allowed_text()}\n"

    async def _allowed_store(self, data: bytes) -> None:
        names = split(_text(data))
        if not names:
            self._messages.pr_err(f"expected '{ANY}' or a list of consistency models")
            raise OSError(errno.EINVAL, "no model")
        self.allowed = None if names == [ANY] else [self._parse(name) for name in names]


def _names(models: Sequence[Model]) -> str:
    return ",".join(model.name for model in models)


def _text(data: bytes) -> str:
    return data.split(b"\0")[0].decode("latin-1").strip()
