# SPDX-License-Identifier: GPL-2.0-or-later

try load test_klp_state
settle
try load test_klp_state2
settle
try load test_klp_state3
settle
tree $klp
try rmmod test_klp_state test_klp_state2
try load test_klp_state
settle
tree $klp
off test_klp_state3
try load test_klp_state2
settle
try load test_klp_state
tree $klp
off test_klp_state2
look
log
