//! Random plans, faults and reports; the invariants hold at every step.
