"""How fast the kernels are on the machine at hand, each against its physical limit."""
