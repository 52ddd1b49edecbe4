//! The binary `kontiki`.
fn main() {}
