"""Pure jitted maths: arrays in, arrays out; no configuration, no files, no logging."""
