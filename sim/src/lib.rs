//! A deterministic simulator that runs the shipped node, log and wire code.
