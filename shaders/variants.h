// Every SPIR-V module of the program, one per line (the build reads this file by lines):
// KERNEL(id, file, defines, tiers the device must have in use, push-constant struct of shared.h)
// Specialisation constants are documented in each .comp; which of several variants serves a case is decided in runtime/ops.
// clang-format off
KERNEL(probe, "probe.comp", "", 0, PushProbe)
// clang-format on
