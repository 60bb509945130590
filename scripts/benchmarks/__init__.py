# SPDX-License-Identifier: GPL-2.0-or-later
"""The rows of scripts/bench, each with its reference program."""
