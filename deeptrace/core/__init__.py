"""The compiled core (sources in ext/core): rings, flows, inference, pairing. No I/O, no clock."""
