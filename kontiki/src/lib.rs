//! A replicated log that lives inside your program.
