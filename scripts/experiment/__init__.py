# SPDX-License-Identifier: GPL-2.0-or-later
"""The experiment of scripts/consistency: a patch under load, with each consistency model."""
